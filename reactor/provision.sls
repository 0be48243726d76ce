# Make a machine for a minion that asks for one (kvm_clone.ask).
#
# In the master's configuration, then restart the master:
#
#   reactor:
#     - 'kvm_clone/request':
#       - salt://reactor/provision.sls
#
# Off until 'kvm_clone: reactor: allow:' names that minion.
#
# The event is only a doorbell: every field of it can be forged. So nothing of it is used but who
# is said to have rung, and that only once it has the form of a minion id. See README.md.
{%- set who = data.get('id') %}
{%- if who is not string or who | length > 253 or not who | regex_match('([A-Za-z0-9_][A-Za-z0-9_.@-]*)$') or '\n' in who %}
{%-   set who = '' %}
{%- endif %}

a minion asks for a machine:
  runner.kvmclone.answer_doorbell:
    - args:
      - bell: request
      - who: {{ who | json }}
