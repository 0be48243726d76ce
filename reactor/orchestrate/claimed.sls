# Claim a machine that is finished already, apply a state to it, and give it back.
#
#   salt-run state.orchestrate reactor.orchestrate.claimed pillar='{profile: ci-runner, sls: build}'
#
# The profile keeps spares, see docs/spares.md. The machine is claimed while this file is rendered,
# since the states need its name; with test=True none is. It is given back at the end, whatever
# became of the state.
{#- Before the claim, so that a pillar without it claims nothing. -#}
{%- set sls = pillar['sls'] | json %}
{%- set claim = {'clones': {}, 'retcode': 0} %}
{%- if not opts.get('test', false) %}
{%- do claim.update(salt['saltutil.runner']('kvmclone.claim', arg=[pillar['profile']], kwarg={'ttl': '1h'})) %}
{%- endif %}
{%- set names = claim['clones'] | list %}

a machine:
  test.configurable_test_state:
    - result: {{ claim['retcode'] == 0 }}
    - changes: {{ opts.get('test', false) }}
    - comment: {{ (names | join(', ') or claim.get('error', {}).get('message') or 'one would be claimed') | json }}

{%- for name in names if claim['retcode'] == 0 %}

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
