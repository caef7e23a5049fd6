# Which framework a policy was written for.
package framework

version := "0.5.0"
