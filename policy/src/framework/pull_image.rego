# An image that the guest pulls itself: a rule {pattern, strategy} (`any`, `string`, `re2`) of the policy's list `pulls` must fit its
# whole name, REGISTRY/REPOSITORY@sha256:DIGEST.
package framework

default pull_image := {"allowed": false}

pull_image := {"allowed": true} if pull_listed

pull_listed if some_rule_fits(data.policy.pulls, input.image)

errors_of("pull_image") := pull_image_errors

pull_image_errors contains "image not listed" if not pull_listed
