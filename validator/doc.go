// Package validator is the resource server: it decides whether a request may
// reach the API behind the gate. It knows nothing of Caddy, of SQL or of the
// authorization server; it asks for keys and for session state through two
// small interfaces.
//
// A request walks through the files in this order: authorize.go (the steps), path.go
// (one reading of the request target, or none), rule_table.go (which scope rule
// decides), bearer.go (credentials), compact.go (the strict gate before the
// signature), verifier.go (signature and claims, or token_cache.go, where they are
// known), admit.go (session, client, user, scope). A refusal leaves through
// challenge.go.
//
// Where a rule has rules for the tools of an MCP server, the way leads through
// tool_call.go, which reads the messages (tool_message.go, json_document.go) and
// finds the rules of the tools they call (tool_rule.go); the answer to tools/list
// comes back through tool_answer.go.
//
// What it refuses to do: normalise a request that two parsers could read
// differently, pass a request that no rule names, accept a token in a query or
// a cookie, accept any serialisation but the compact one that the issuer made,
// let a request through when the session state cannot be confirmed.
//
// RFC 6750 (bearer tokens), RFC 9068 (JWT access tokens), RFC 7515 and RFC
// 8725 (JWS and its pitfalls), RFC 9728 section 5 (challenges), RFC 9110.
package validator
