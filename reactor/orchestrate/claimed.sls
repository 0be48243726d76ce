# Claim a machine that is finished already, apply a state to it, and give it back.
#
#   salt-run state.orchestrate reactor.orchestrate.claimed pillar='{profile: ci-runner, sls: build}'
#
# The profile keeps spares, see docs/spares.md. The machine is claimed while this file is rendered:
# only then is it known what it is called. It is given back whatever became of the state.
{#- Before that, so that a pillar without it claims nothing. -#}
{%- set sls = pillar['sls'] | json %}
{%- set answer = salt['saltutil.runner']('kvmclone.claim', arg=[pillar['profile']], kwarg={'ttl': '1h'}) %}
{%- set names = answer.get('clones', {}) | list %}

a machine:
  test.configurable_test_state:
    - result: {{ answer['retcode'] == 0 }}
    - changes: false
    - comment: {{ (names | join(', ') or answer['error']['message']) | json }}

{%- for name in names if answer['retcode'] == 0 %}

work on {{ name }}:
  salt.state:
    - tgt: {{ name }}
    - sls: {{ sls }}

give {{ name }} back:
  salt.runner:
    - name: kvmclone.release
    - arg: [{{ name }}]
    - order: last
{%- endfor %}
