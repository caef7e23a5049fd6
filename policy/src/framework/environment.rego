# Environment variables: allowed, required and dropped ones.
#
# A rule accepts an entry that matches `pattern`, or whose name and value (split at the first "=") match `name` and `value`;
# the strategies are `string` (equal) and `re2` (matched from start to end).
package framework

# The largest subset of the request that some object (container or process) accepts; undefined if two of that size differ.
kept_env(_) := input.envList if not data.policy.allow_environment_variable_dropping

kept_env(objects) := casemate_env_kept(objects, input.envList) if data.policy.allow_environment_variable_dropping

# Objects that accept every entry and whose required rules each match an entry.
env_fitting(objects, entries) := casemate_env_fitting(objects, entries)

env_known(rules, entry) if count(casemate_env_unknown([{"env_rules": rules}], [entry])) == 0

# Names of the variables that no object accepts, in the order of the request.
unknown_env(objects) := casemate_env_unknown(objects, input.envList)

env_incomplete(objects) if casemate_env_incomplete(objects, input.envList)
