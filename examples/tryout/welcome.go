package main

import (
	"fmt"
	"io"
	"net/url"

	"golang.org/x/oauth2"
)

// welcome says what is there and what to try first. Every line under "Try it"
// can be pasted as it is.
func welcome(out io.Writer, g *gateway, d *demo, caddy *caddyProcess, db database) {
	verifier := oauth2.GenerateVerifier()
	link := g.address + "/oauth/authorize?" + url.Values{
		"response_type": {"code"}, "client_id": {"demo-public"}, "redirect_uri": {"http://127.0.0.1/callback"},
		"scope": {"jobs:read applications:read"}, "state": {"first-try"},
		"code_challenge": {oauth2.S256ChallengeFromVerifier(verifier)}, "code_challenge_method": {"S256"},
	}.Encode()

	fmt.Fprintf(out, `
Gateway   %[1]s, in front of the sample APIs on %[2]s and %[3]s
MCP       %[1]s/mcp, for any MCP client; the server behind it, on %[11]s, knows nothing of OAuth
Database  %[4]s
Log       %[5]s

Sign in   Email     %[6]s
          Password  %[7]s
Clients   demo-public (no secret, PKCE)
          demo-confidential, secret %[8]s
          (made once and kept in %[9]s; DEMO_PASSWORD and DEMO_CLIENT_SECRET set others)

Try it, in another terminal. Without a token, 401 and where to get one:

  curl -i '%[1]s/jobs'

Sign in with the browser and get a token:

  %[10]smake login
`, g.address, g.jobs, g.people, db.where, caddy.logFile, demoEmail, d.password, d.clientSecret, d.file, g.prefix(), g.tools)
	if db.psql != "" {
		fmt.Fprintf(out, `
Switch every session off; the next request with that token gets 401:

  %s -c "UPDATE gpt_sessions SET revoked_at = now() WHERE revoked_at IS NULL"
`, db.psql)
	}
	fmt.Fprintf(out, `
Or get a token by hand: open this link, sign in, allow. The browser ends on an
address that nothing serves; copy the value of "code" from it within 5 minutes.

  %[1]s

  curl '%[2]s/oauth/token' -d grant_type=authorization_code -d client_id=demo-public \
    -d redirect_uri=http://127.0.0.1/callback -d code_verifier=%[3]s -d code=CODE

Ctrl-C stops all of it.

ready
`, link, g.address, verifier)
}
