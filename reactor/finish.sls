# Apply the highstate to a new clone, once, when its minion has started.
#
# In the master's configuration, then restart the master:
#
#   reactor:
#     - 'salt/minion/*/start':
#       - salt://reactor/finish.sls
#
# Off until 'kvm_clone: reactor: finish: true'.
#
# The event is only a doorbell: every field of it can be forged. So nothing of it is used but who
# is said to have started, and that only once it has the form of a minion id. See README.md.
{%- set who = data.get('id') %}
{%- if who is not string or who | length > 253 or not who | regex_match('([A-Za-z0-9_][A-Za-z0-9_.@-]*)$') or '\n' in who %}
{%-   set who = '' %}
{%- endif %}

a minion started:
  runner.kvmclone.answer_doorbell:
    - args:
      - bell: start
      - who: {{ who | json }}
