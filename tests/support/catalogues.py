"""A catalogue with a profile and its provider, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saltext.kvmclone.config.catalogue import Catalogue, KeyLocation, Section, build
from saltext.kvmclone.config.validate import error_for
from saltext.kvmclone.model.request import Request

PROVIDER_PLACE = "/etc/salt/cloud.providers:1"
PROFILE_PLACE = "/etc/salt/cloud.profiles:1"
LOCAL = {"driver": "libvirt", "url": "qemu:///system"}
BASE = {"provider": "local-kvm", "base_domain": "base"}


def provider(name: Any, keys: Any, place: str = PROVIDER_PLACE) -> Section:
    return Section(KeyLocation.PROVIDER, name, keys, place)


def profile(name: Any, keys: Any, place: str = PROFILE_PLACE) -> Section:
    return Section(KeyLocation.PROFILE, name, keys, place)


def catalogue_of(
    keys: Mapping[str, Any],
    provider_keys: Mapping[str, Any] = LOCAL,
    cloud_file: Mapping[str, Any] | None = None,
    **readers: Any,
) -> Catalogue:
    """A catalogue with one profile, ``small``, and its provider."""
    sections = [provider("local-kvm", dict(provider_keys)), profile("small", {**BASE, **keys})]
    return build(sections, cloud_file, **readers)


def resolved(keys: Mapping[str, Any], **more: Any) -> Request:
    return catalogue_of(keys, **more).resolve("small", "web1")[0]


def message_of(*sections: Section, **more: Any) -> str:
    return error_for(build(sections, **more).problems.found).message
