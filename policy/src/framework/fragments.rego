# Signed additions to a policy. Without a signature that was checked none is allowed.
package framework

default load_fragment := {"allowed": false}
