# The framework version of a policy, compared with the current one.
package framework

version := "0.5.0"

# Two names of one thing: with different values they conflict, which denies.
policy_version := data.policy.framework_version

policy_version := data.policy.framework_svn

# Below 0: the policy is older, and its objects are upgraded. Above 0, missing or not a semantic version: its lists count as
# empty.
policy_age := semver.compare(policy_version, version)

errors contains sprintf("framework_version is missing. Current version: %s", [version]) if {
	not policy_version
}

errors contains sprintf("framework_version is ahead of the current version: %s is greater than %s", [policy_version, version]) if {
	policy_age > 0
}
