# Claim a machine that is finished already, apply a state to it, and give it back.
#
#   salt-run state.orchestrate reactor.orchestrate.claimed pillar='{profile: ci-runner, sls: build}'
#
# The profile keeps spares, see docs/spares.md. The machine is claimed while this file is rendered,
# since the states need its name; so it is claimed with test=True, too, and is then destroyed at the
# end of its ttl. Otherwise it is given back at the end, whatever became of the state.
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
    - sls: {{ pillar['sls'] }}

give {{ name }} back:
  salt.runner:
    - name: kvmclone.release
    - arg: [{{ name }}]
    - order: last
{%- endfor %}
