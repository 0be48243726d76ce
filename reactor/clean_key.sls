# Remove the key of a clone that is gone, if all hosts say that it is, and only the key that
# we accepted for it ourselves; tell the minion that asked for it that it is gone.
#
# In the master's configuration, then restart the master:
#
#   reactor:
#     - 'salt/kvm_clone/*/destroyed':
#       - salt://reactor/clean_key.sls
#
# The key stays until 'kvm_clone: reactor: clean_keys: true'; a minion is told where 'allow:' has
# rules.
#
# The event is only a doorbell: every field of it can be forged. So nothing of it is used but who
# is said to be gone, and that only once it has the form of a name. See README.md.
{%- set who = (tag | string).split('/')[2] %}
{%- if who | length > 253 or not who | regex_match('([A-Za-z0-9_][A-Za-z0-9_.@-]*)$') or '\n' in who %}
{%-   set who = '' %}
{%- endif %}

a clone is gone:
  runner.kvmclone.answer_doorbell:
    - args:
      - bell: destroyed
      - who: {{ who | json }}
