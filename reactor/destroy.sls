# Destroy a machine that a minion gives back (kvm_clone.release): one that it asked for,
# or itself.
#
# In the master's configuration, then restart the master:
#
#   reactor:
#     - 'kvm_clone/release':
#       - salt://reactor/destroy.sls
#
# Off until 'kvm_clone: reactor: allow:' names that minion.
#
# The event is only a doorbell: every field of it can be forged. So nothing of it is used but who
# is said to have rung, and that only once it has the form of a minion id. See README.md.
{%- set who = data.get('id') %}
{%- if who is not string or who | length > 253 or not who | regex_match('([A-Za-z0-9_][A-Za-z0-9_.@-]*)$') or '\n' in who %}
{%-   set who = '' %}
{%- endif %}

a minion gives a machine back:
  runner.kvmclone.answer_doorbell:
    - args:
      - bell: release
      - who: {{ who | json }}
