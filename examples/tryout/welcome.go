package main

import (
	"fmt"
	"io"
	"net/url"
	"os"

	"golang.org/x/oauth2"
)

// welcome says what is there and what to try first.
func welcome(out io.Writer, g *gateway, d *demo, caddy *caddyProcess) {
	database := "embedded Postgres, data in .data/postgres"
	if os.Getenv("DATABASE_URL") != "" {
		database = "Postgres of DATABASE_URL"
	} else if _, err := os.Stat(".data/postgres/pgdata"); err != nil {
		database = "embedded Postgres; where its data is stands in " + caddy.logFile
	}
	verifier := oauth2.GenerateVerifier()
	link := g.address + "/oauth/authorize?" + url.Values{
		"response_type": {"code"}, "client_id": {"demo-public"}, "redirect_uri": {"http://127.0.0.1/callback"},
		"scope": {"jobs:read applications:read"}, "state": {"first-try"},
		"code_challenge": {oauth2.S256ChallengeFromVerifier(verifier)}, "code_challenge_method": {"S256"},
	}.Encode()

	fmt.Fprintf(out, `
Gateway   %[1]s, in front of the sample APIs on :9001 and :9002
Database  %[2]s
Log       %[3]s

Sign in   Email     %[4]s
          Password  %[5]s
Clients   demo-public (no secret, PKCE)
          demo-confidential, secret %[6]s
          (made once and kept in %[7]s; DEMO_PASSWORD and DEMO_CLIENT_SECRET set others)

Try it, in another terminal:

  curl -i %[1]s/jobs        # 401, and where to get a token
  make login                              # sign in with the browser, get a token

Or by hand: open this link, sign in, allow. The browser ends on an address that
nothing serves; copy the value of "code" from it.

  %[8]s

  curl %[1]s/oauth/token -d grant_type=authorization_code -d client_id=demo-public \
    -d redirect_uri=http://127.0.0.1/callback -d code_verifier=%[9]s -d code=CODE

Ctrl-C stops all of it.

ready
`, g.address, database, caddy.logFile, demoEmail, d.password, d.clientSecret, d.file, link, verifier)
}
