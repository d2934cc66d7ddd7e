//go:build linux

package e2e

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// operated is the configuration of docs/operations.md.
const operated = `{
	local_certs
	skip_install_trust
	log {
		level ERROR
	}
	oauth {
		issuer   https://api.example.com
		postgres {env.DATABASE_URL}
		secret {env.OAUTH_SECRET}
		scope jobs:read "Search jobs and view job details"
		client career-copilot {
			name         "Career Copilot"
			secret       {env.GPT_CLIENT_SECRET}
			redirect_uri https://chatgpt.com/aip/g-123/oauth/callback
		}
		login password
	}
}

api.example.com {
	oauth_server
	oauth_protect {
		GET /jobs jobs:read
	}
	reverse_proxy localhost:9001
}
`

// operator does what docs/operations.md says.
type operator struct {
	*tutorial
}

func newOperator(t *testing.T, m *machine) *operator {
	t.Helper()
	o := &operator{tutorial: follow(t, m, "operations.md")}
	database := func(name string) string {
		dsn, err := url.Parse(os.Getenv(readerDatabase))
		if err != nil {
			t.Fatal(err)
		}
		dsn.Path = "/" + name
		return dsn.String()
	}
	// Databases beside the reader's are named after it, for others may have the same.
	dsn, err := url.Parse(os.Getenv(readerDatabase))
	if err != nil {
		t.Fatal(err)
	}
	restored, moved := dsn.Path[1:]+"_restored", dsn.Path[1:]+"_moved"
	const at = "postgres://caddy:PASSWORD@db.example.com/"
	o.own = strings.NewReplacer(at+"caddy", dsn.String(), at+"restored", database(restored), at+"moved", database(moved),
		`createdb --maintenance-db="$DATABASE_URL" restored`, `createdb --maintenance-db="$DATABASE_URL" `+restored,
		`createdb --maintenance-db="$DATABASE_URL" moved`, `createdb --maintenance-db="$DATABASE_URL" `+moved)
	o.caddyfile = func(secrets string) { // the lines of the root secret
		writeFile(t, filepath.Join(m.dir, "Caddyfile"), strings.Replace(operated, "\t\tsecret {env.OAUTH_SECRET}\n", secrets, 1))
	}
	o.caddyfile("\t\tsecret {env.OAUTH_SECRET}\n")
	o.run(`xcaddy build --with github.com/caddy-scope/caddy-scope; ln -s "$PWD/caddy" bin/caddy`)
	o.run(`export DATABASE_URL='` + dsn.String() + `' OAUTH_SECRET=$(openssl rand -hex 32) GPT_CLIENT_SECRET=$(openssl rand -hex 32)`)
	t.Cleanup(func() {
		_, _ = o.shell("caddy stop", false)
		for _, name := range []string{restored, moved} {
			_, _ = o.shell(`dropdb --if-exists --force --maintenance-db='`+dsn.String()+`' `+name, false)
		}
	})
	return o
}

// run runs commands that the document does not show.
func (o *operator) run(commands string) string {
	o.t.Helper()
	out, err := o.shell(commands, true)
	if err != nil {
		o.t.Fatalf("%v\n%s\n%s", err, commands, out)
	}
	return out
}

// procedure does what the section says. Sections that describe are left.
func (o *operator) procedure(title string) {
	o.t.Helper()
	o.sections = slices.DeleteFunc(o.sections, func(s tutorialSection) bool {
		if s.title == title {
			for _, block := range fenced.FindAllStringSubmatch(s.text, -1) {
				o.do(block[1], o.own.Replace(block[2]))
			}
		}
		return s.title == title
	})
}

func (o *operator) ready() {
	o.t.Helper()
	o.run(`curl -s --retry 60 --retry-all-errors --retry-delay 1 https://api.example.com/oauth/healthz/ready`)
}

// token has an access token issued, into a variable of the shell.
func (o *operator) token(variable string) {
	o.t.Helper()
	o.run(variable + `=$(caddy oauth token issue --client career-copilot --user ada@example.com --scope jobs:read 2>/dev/null)`)
	o.answers(variable, "200")
}

// answers polls until a call with the token is answered so, for nodes follow what
// commands do within moments.
func (o *operator) answers(variable, status string) {
	o.t.Helper()
	last := ""
	for deadline := time.Now().Add(40 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		last = o.run(`curl -s -o /dev/null -w '%{http_code}' https://api.example.com/jobs -H "Authorization: Bearer $` + variable + `"`)
		if last == status {
			return
		}
	}
	o.t.Errorf("a call with $%s: %s, want %s", variable, last, status)
}

// OPS-17: TestOperationsAreWhatTheDocumentSays: every procedure of docs/operations.md, by its
// commands, on a real Postgres and a real Caddy, with tokens in hand. OPS-18, R-22: a token
// that was revoked after the backup is refused after it was restored.
func TestOperationsAreWhatTheDocumentSays(t *testing.T) {
	m := onReadersMachine(t)
	if m == nil {
		return
	}
	startAPI(t)
	o := newOperator(t, m)
	o.run("caddy start")
	o.ready()
	o.run(`echo 'correct horse battery' | caddy oauth user add ada@example.com --password-stdin`)

	o.token("BEFORE")
	o.procedure("Signing keys")
	o.answers("BEFORE", "401")

	o.token("KEPT")
	o.procedure("Replacing the root secret")
	o.ready()
	o.answers("KEPT", "200")
	o.run(`export OAUTH_SECRET=$OAUTH_SECRET_NEW`) // the old one is taken away
	o.caddyfile("\t\tsecret {env.OAUTH_SECRET}\n")
	o.run("caddy stop; caddy start")
	o.ready()
	o.answers("KEPT", "200")

	o.token("REVOKED")
	o.procedure("Backing up")
	o.token("LATER")
	o.run(`caddy oauth session revoke --user ada@example.com --yes`)
	o.answers("REVOKED", "401")
	o.procedure("Restoring a backup")
	o.ready()
	for _, variable := range []string{"REVOKED", "KEPT", "LATER"} {
		o.answers(variable, "401")
	}
	// It would have been alive: the command is what ended it.
	if n := o.run(`psql -Atc "SELECT count(*) FROM gpt_sessions WHERE revoke_reason = 'restored'" "$DATABASE_URL"`); n == "0" {
		t.Error("the backup brought nothing back, and so shows nothing")
	}

	o.token("UPGRADED")
	o.procedure("Upgrading")
	o.answers("UPGRADED", "200")

	o.token("ENDED")
	o.run(`caddy oauth session revoke --user ada@example.com --yes`)
	o.token("MOVED")
	o.procedure("Moving to another database")
	o.ready()
	o.answers("MOVED", "200")
	o.answers("ENDED", "401")
	if name := o.run(`psql -Atc "SELECT current_database()" "$DATABASE_URL"`); !strings.HasSuffix(name, "_moved") {
		t.Errorf("the database is %s", name)
	}

	// The system that went before, with a live refresh token, in a database that was emptied.
	o.run("caddy stop")
	o.run(`export DATABASE_URL='` + os.Getenv(readerDatabase) + `'
psql -q -v ON_ERROR_STOP=1 "$DATABASE_URL" <<'SQL'
DROP SCHEMA public CASCADE; CREATE SCHEMA public;
` + replacedSystem + `
SQL`)
	o.procedure("Taking over the existing system")
	o.ready()
	answer := o.run(`curl -s https://api.example.com/oauth/token -u "career-copilot:$GPT_CLIENT_SECRET" -d grant_type=refresh_token -d refresh_token=` + replacedToken)
	access := regexp.MustCompile(`"access_token":"([^"]+)"`).FindStringSubmatch(answer)
	if access == nil {
		t.Fatalf("the refresh token of the replaced system: %s", answer)
	}
	o.run("ADOPTED=" + access[1])
	o.answers("ADOPTED", "200")

	for _, left := range o.sections {
		if fenced.MatchString(left.text) {
			t.Errorf("docs/operations.md: not followed: %q", left.title)
		}
	}
}

// replacedSystem is a database of the service that caddy-scope replaces, with one
// session, and replacedToken its refresh token.
const (
	replacedToken  = "gpt_rt_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	replacedSystem = `
CREATE TABLE gpt_refresh_tokens (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), token_hash text NOT NULL UNIQUE, clerk_user_id text NOT NULL,
	expires_at timestamptz NOT NULL, revoked_at timestamptz, rotated_to uuid REFERENCES gpt_refresh_tokens, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE gpt_authorization_codes (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), code text NOT NULL UNIQUE, code_challenge text NOT NULL,
	code_challenge_method text NOT NULL DEFAULT 'S256', clerk_user_id text NOT NULL, redirect_uri text NOT NULL,
	expires_at timestamptz NOT NULL, used_at timestamptz, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE gpt_sessions (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), clerk_user_id text NOT NULL, refresh_token_id uuid REFERENCES gpt_refresh_tokens,
	scopes text[] NOT NULL DEFAULT '{}', granted_scopes text[] NOT NULL DEFAULT '{}', last_active timestamptz NOT NULL DEFAULT now(), created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE gpt_oauth_events (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), event_type text NOT NULL, clerk_user_id text, metadata jsonb DEFAULT '{}',
	ip_address text, created_at timestamptz NOT NULL DEFAULT now());
WITH token AS (INSERT INTO gpt_refresh_tokens (token_hash, clerk_user_id, expires_at)
	VALUES (encode(sha256('` + replacedToken + `'), 'hex'), 'user_1', now() + interval '20 days') RETURNING id)
INSERT INTO gpt_sessions (clerk_user_id, refresh_token_id, scopes, granted_scopes) SELECT 'user_1', id, '{jobs:read}', '{jobs:read}' FROM token;`
)
