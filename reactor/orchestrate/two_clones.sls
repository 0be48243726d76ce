# Make two clones at once, and go on only when both are minions that answer.
#
#   salt-run state.orchestrate reactor.orchestrate.two_clones
#
# Change the profile and the names. They stand under kwarg: because names: is a word of Salt's
# own in a state. A second run fails with AlreadyExists: that is the runner telling you that the
# machines are there.

two clones:
  salt.runner:
    - name: kvmclone.create
    - kwarg:
        profile: centos7
        names:
          - web1
          - web2

configure them:
  salt.state:
    - tgt: [web1, web2]
    - tgt_type: list
    - highstate: true
    - require:
      - salt: two clones
