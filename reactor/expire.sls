# Destroy the clones of a KVM host whose ttl has passed, once the host itself says so.
#
# In the master's configuration, then restart the master:
#
#   reactor:
#     - 'kvm_clone/expired':
#       - salt://reactor/expire.sls
#
# Off until 'kvm_clone: reactor: expire: true'. The host rings by kvm_clone.ring_expired in its
# 'schedule:'.
#
# The event is only a doorbell: every field of it can be forged. So nothing of it is used but who
# is said to have rung, and that only once it has the form of a minion id. See README.md.
{%- set who = data.get('id') %}
{%- if who is not string or who | length > 253 or not who | regex_match('([A-Za-z0-9_][A-Za-z0-9_.@-]*)$') or '\n' in who %}
{%-   set who = '' %}
{%- endif %}

a host says that clones expired:
  runner.kvmclone.answer_doorbell:
    - args:
      - bell: expired
      - who: {{ who | json }}
