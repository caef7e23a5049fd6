# Environment variables: which may be there, which must be there, which are dropped.
#
# A rule accepts an entry whose whole text fits `pattern`, or whose name and value (split at the first "=") fit `name` and `value`;
# the strategies are `string` (equal) and `re2` (matched from start to end).
package framework

# The one largest subset of the request that some of the objects (containers or processes) can agree on.
kept_env(_) := input.envList if not data.policy.allow_environment_variable_dropping

kept_env(objects) := casemate_env_kept(objects, input.envList) if data.policy.allow_environment_variable_dropping

# Objects that know every entry and whose required rules each accept one.
env_fitting(objects, entries) := casemate_env_fitting(objects, entries)

env_known(rules, entry) if count(casemate_env_unknown([{"env_rules": rules}], [entry])) == 0

# Names of the variables that none of the objects knows, in the order of the request.
unknown_env(objects) := casemate_env_unknown(objects, input.envList)

env_incomplete(objects) if casemate_env_incomplete(objects, input.envList)
