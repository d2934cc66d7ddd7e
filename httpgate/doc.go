// Package httpgate is the gate as a plain net/http middleware: for a service in Go
// that is not behind Caddy. It takes the access tokens of a caddy-scope issuer
// that runs elsewhere, and decides by the same scope rules.
//
//	gate, err := httpgate.New(httpgate.Config{
//		Issuer:   "https://auth.example.com",
//		Resource: "https://jobs.example.com",
//		Rules: []string{
//			"GET  /jobs/*       jobs:read",
//			"POST /applications applications:write",
//			"GET  /health       public",
//		},
//		ClientID: "jobs-service", ClientSecret: os.Getenv("JOBS_SERVICE_SECRET"),
//	})
//	http.ListenAndServe(":9001", gate.Handler(api))
//
//	// in a handler
//	caller, ok := httpgate.FromContext(r.Context())
//
// At the issuer, `resource https://jobs.example.com jobs:read applications:write`
// declares the resource, and the client says `introspect https://jobs.example.com`.
//
// Sessions are asked about by introspection, and an answer counts for
// Config.MaxStaleness: no request is admitted later than that after its session was
// revoked. While the issuer cannot be asked, answers count to that bound; then
// requests get 503, and never pass. A service that may read the issuer's database
// gives Config.Sessions instead (postgres.SessionView).
//
// It stands before everything that reads or changes the path: what is decided on
// must be what is served. The context of a request ends when its session does, so
// that streams end that look at it.
//
// What it refuses to do is told in package validator, which decides, and in package
// authserver, which asks. Tokens that are bound to a key (DPoP) are refused: there is
// no store of proofs here.
package httpgate
