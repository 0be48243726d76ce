"""
Collect the problems of a configuration, and say which sections they concern.

Pure. A section with problems is refused where it is used; whatever does not use it works. While
it is not certain which hosts there are, no machine may count as gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from saltext.kvmclone.config.schema import KeyLocation
from saltext.kvmclone.config.validate import Problem, error_for
from saltext.kvmclone.errors import ConfigError

#: A section: its sort and its name.
SectionId = tuple[KeyLocation, str]

# Entries of the cloud file that say which providers there are, or where they are written.
_NAMES_PROVIDERS = ("providers", "providers_config", "include", "default_include")


@dataclass(frozen=True)
class Problems:
    """
    All problems of a configuration.

    :param found: In the order in which they were found.
    :param extends: The sections that each section extends.
    :param provider_of: The provider of each profile, as far as it names one.
    """

    found: tuple[Problem, ...] = ()
    extends: Mapping[SectionId, Iterable[SectionId]] = field(default_factory=dict)
    provider_of: Mapping[str, str] = field(default_factory=dict)

    def of(self, kind: KeyLocation, name: str) -> tuple[Problem, ...]:
        """Return all problems that concern whoever uses one section."""
        whole: list[SectionId] = [(kind, name)]
        if kind is KeyLocation.PROFILE and name in self.provider_of:
            whole.append((KeyLocation.PROVIDER, self.provider_of[name]))
        used = self._with_extended(whole)
        return tuple(
            problem
            for problem in self.found
            if problem.section
            and (section := (problem.kind, problem.section)) in used
            and (section in whole or not problem.lacking)
        )

    def _with_extended(self, sections: Iterable[SectionId]) -> set[SectionId]:
        used: set[SectionId] = set()
        todo = list(sections)
        while todo:
            section = todo.pop()
            if section not in used:
                used.add(section)
                todo.extend(self.extends.get(section, ()))
        return used

    def of_files(self, kind: KeyLocation) -> tuple[Problem, ...]:
        """Return the problems of unreadable files that may define sections of one sort."""
        kinds = (kind, KeyLocation.GLOBAL, None)
        return tuple(p for p in self.found if p.is_of_a_file and p.kind in kinds)

    def require_profile(self, name: str) -> None:
        """
        Refuse a profile if anything is wrong with it or with what it uses.

        :raises ConfigError: All of it, at once.
        """
        wrong = self.of(KeyLocation.PROFILE, name)
        # A provider that was not found may stand in a file that could not be read.
        unread = self.of_files(KeyLocation.PROVIDER) if wrong else ()
        _refuse((*wrong, *unread, *self._of_cloud_file()))

    def require_provider(self, name: str) -> None:
        """
        Refuse a provider if anything is wrong with it or with what it extends.

        :raises ConfigError: All of it, at once.
        """
        _refuse(self.of(KeyLocation.PROVIDER, name))

    def require_cloud_file(self) -> None:
        """
        Refuse the cloud file, which every machine uses, if anything is wrong with it.

        :raises ConfigError: All of it, at once.
        """
        _refuse(self._of_cloud_file())

    def _of_cloud_file(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.found if problem.kind is KeyLocation.GLOBAL)

    def elsewhere(self, command: str = "salt-run kvmclone.profiles") -> tuple[str, ...]:
        """
        Return a warning that names all that has problems, for a user of none of it.

        :param command: The command that shows all problems.
        :return: One warning; empty where nothing is wrong.
        """
        wrong = dict.fromkeys(f"'{p.section}'" if p.section else p.place for p in self.found)
        if not wrong:
            return ()
        return (
            f"Not used, since something is wrong there: {', '.join(wrong)}. "
            f"See all problems: {command}",
        )

    def hiding_hosts(self) -> dict[str, ConfigError]:
        """
        Return the errors of what cannot be read and may name hosts.

        :return: By name of a provider, or by path of a file.
        """
        hiding: dict[str, list[Problem]] = {}
        for problem in self.found:
            if _hides_hosts(problem):
                hiding.setdefault(problem.section or problem.place, []).append(problem)
        for kind, name in self.extends:
            if kind is KeyLocation.PROVIDER and (wrong := self.of(kind, name)):
                hiding[name] = list(wrong)
        return {name: error_for(problems) for name, problems in hiding.items()}

    def forbidding_gone(self) -> ConfigError | None:
        """
        Return the reason why no machine may count as gone; None where everything was read.

        The reason is a provider, or any file at all, that cannot be read.
        """
        problems = [p for p in self.found if p.is_of_a_file or _hides_hosts(p)]
        if not problems:
            return None
        told = "; ".join(dict.fromkeys(map(str, problems)))
        return ConfigError(
            f"While a provider cannot be read, no machine counts as gone. {told}",
            "Correct it, or take out a provider whose host is gone for good. List what is "
            "left to correct: salt-run kvmclone.profiles",
        )


def _refuse(problems: Iterable[Problem]) -> None:
    found = list(problems)
    if found:
        raise error_for(found)


def _hides_hosts(problem: Problem) -> bool:
    if problem.kind is KeyLocation.GLOBAL:
        return problem.is_of_a_file or problem.section in _NAMES_PROVIDERS
    return problem.kind in (KeyLocation.PROVIDER, None)
