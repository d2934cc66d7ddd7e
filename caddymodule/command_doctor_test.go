package caddymodule

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/caddymodule/doctor"
)

// healthy serves every product that is known.
const healthy = `{
	oauth {
		issuer   https://api.example.com
		postgres postgres://127.0.0.1:1/none
		secret   0123456789abcdef0123456789abcdef

		scope jobs:read          "Search jobs and view job details"
		scope applications:write "Submit applications for you"
		scope resume:read        "Read your resume"

		client career-copilot {
			name         "Career Copilot"
			secret       a-client-secret-that-is-long-enough
			redirect_uri https://chat.openai.com/aip/g-123/oauth/callback
			redirect_uri https://chatgpt.com/aip/g-123/oauth/callback
			pkce         optional
		}
		client library {
			secret       a-client-secret-that-is-long-enough
			redirect_uri https://app.example.com/callback
		}
		client acme {
			secret a-client-secret-that-is-long-enough
			grants client_credentials
			scope  jobs:read
		}
		registration {
			metadata_documents
			dynamic
		}
		login password
	}
}
api.example.com {
	oauth_server
	handle /mcp {
		oauth_protect authenticated {
			resource /mcp
			tool search_jobs        jobs:read
			tool submit_application applications:write
			cors                    *
		}
		reverse_proxy 127.0.0.1:1
	}
	handle {
		oauth_protect {
			GET  /jobs         jobs:read
			GET  /jobs/*       jobs:read
			POST /applications applications:write
			GET  /health       public
		}
		reverse_proxy 127.0.0.1:2
	}
}
`

// diagnosed runs the command and reads what it says.
func diagnosed(t *testing.T, config string, args ...string) (*doctor.Report, error) {
	t.Helper()
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	out, failed := oauthCommand(t, config, "", append([]string{"doctor", "--json"}, args...)...)
	var report doctor.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v %v: %s\n%s", failed, err, out, config)
	}
	return &report, failed
}

// DOC-02: every check that leads to a call is made, and passes.
func TestDoctorPassesEveryProductThatTheConfigurationServes(t *testing.T) {
	report, err := diagnosed(t, healthy)
	if err != nil {
		t.Errorf("the exit status is not 0: %v", err)
	}
	want := []string{"chatgpt", "chatgpt-actions", "claude", "claude-code", "cline", "codex", "cursor", "goose", "inspector", "m365-copilot", "partner", "slack", "strict-library", "vscode"}
	var got []string
	for _, p := range report.Products {
		got = append(got, p.Name)
		if p.Verdict != doctor.Works {
			t.Errorf("%s %s: %+v", p.Name, p.Verdict, p)
		}
		// A check that is never made would never fail.
		for _, r := range p.Results {
			if made := r.Outcome == doctor.Pass; !made && slices.Contains([]string{"registration", "authentication", "token", "call"}, r.Check) {
				t.Errorf("%s: %s: %s", p.Name, r.Check, r.Reason)
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("tried were %q", got)
	}
}

// broken is a configuration in which one thing is wrong for one product.
type broken struct {
	name     string
	old, new string // in the healthy one; each old for its new, separated by |; "all OLD": wherever it stands
	product  string
	check    string // "": it is not served
	why      string // in the reason
	mend     string // in what to write
}

// registered is what lets products register themselves.
const registered = "registration {\n\t\t\tmetadata_documents\n\t\t\tdynamic\n\t\t}"

var fatal = []broken{
	{"pkce demanded of a GPT", "pkce         optional", "", "chatgpt-actions", "pkce", "sends no code_challenge", "pkce optional"},
	{"one callback of a GPT", "redirect_uri https://chatgpt.com/aip/g-123/oauth/callback", "", "chatgpt-actions", "redirect", "not registered for it", "redirect_uri https://chatgpt.com/aip/g-123/oauth/callback"},
	{"no callback of a GPT", "/aip/g-123/|/aip/g-123/", "/gpt/|/gpt/", "chatgpt-actions", "", "no client of the configuration", "redirect_uri https://chat.openai.com/aip/g-ID/oauth/callback"},
	{"a GPT for two resources", "oauth_protect {", "oauth_protect {\nresource https://api.example.com/v1", "chatgpt-actions", "resource", "no resource is named", "resource https://api.example.com/v1"},
	{"a GPT without a secret", "secret       a-client-secret-that-is-long-enough\n\t\t\tredirect_uri https://chat.openai.com|pkce         optional", "redirect_uri https://chat.openai.com|", "chatgpt-actions", "authentication", "has no secret", "secret {env."},
	{"a GPT with a scope that opens nothing", "pkce         optional", "pkce optional\nscope resume:read", "chatgpt-actions", "call", "opens nothing", "scope"},
	{"an address of the local network", "all api.example.com", "api.internal", "chatgpt", "address", "cannot reach api.internal", "issuer https://YOUR.DOMAIN"},
	{"plain http", "all https://api.example.com|api.example.com {", "http://localhost:8080|http://localhost:8080 {", "claude", "address", "not https", "issuer https://YOUR.DOMAIN"},
	{"another domain for the API", "oauth_protect {|api.example.com {", "oauth_protect {\nresource https://api.example.org|api.example.com, api.example.org {", "chatgpt-actions", "domain", "of example.com, the API of example.org", "issuer https://NAME.example.org"},
	{"no oauth_server", "\toauth_server\n", "", "claude", "resource-metadata", "oauth-protected-resource/mcp is answered", "oauth_server in the site of api.example.com"},
	{"a challenge that is deleted", "\toauth_server\n", "oauth_server\nheader -WWW-Authenticate\n", "claude", "challenge", "no WWW-Authenticate", "remove what deletes WWW-Authenticate"},
	{"a challenge that is replaced", "\toauth_server\n", "oauth_server\nheader >WWW-Authenticate `Basic realm=\"x\"`\n", "claude-code", "challenge", "is Basic, not Bearer", "remove what adds a challenge"},
	{"a gate that redirects", "\toauth_server\n", "oauth_server\nredir /mcp /login\n", "chatgpt", "challenge", "is redirected to /login", "take the redirect away"},
	{"errors that become a page", "cors                    *|reverse_proxy 127.0.0.1:2\n\t}", "errors caddy|reverse_proxy 127.0.0.1:2\n\t}\nhandle_errors {\nrespond \"Please sign in\" 200\n}", "claude", "challenge", "is answered 200", "rule that is not public"},
	{"a gate for another path", "resource /mcp", "resource /mcp2", "slack", "challenge", "answered 403", "must be asked for POST https://api.example.com/mcp2"},
	{"a public MCP server", "oauth_protect authenticated {|tool search_jobs        jobs:read\n\t\t\ttool submit_application applications:write|cors                    *", "oauth_protect public {||", "vscode", "challenge", "is answered 200", "not public"},
	{"a site of another name", "api.example.com {", "www.example.com {", "codex", "challenge", "no site answers", "a site for the host"},
	{"metadata that are redirected", "\toauth_server\n", "oauth_server\nredir /.well-known/oauth-protected-resource* https://www.example.com{uri}\n", "claude", "resource-metadata", "is redirected to https://www.example.com", "without a redirect"},
	{"metadata of the server that are rewritten", "\toauth_server\n", "oauth_server\nrewrite /.well-known/oauth-authorization-server /index.html\n", "chatgpt", "server-metadata", "is answered", "oauth_server in the site"},
	{"metadata of the server by another", "\toauth_server\n|{\n\toauth {", "oauth_server\nrespond /.well-known/oauth-authorization-server `{\"issuer\":\"https://idp.example.com\"}`\n|{\n\torder respond before oauth_server\n\toauth {", "cursor", "server-metadata", "https://idp.example.com", "oauth_server in the site"},
	{"an OpenID configuration that fails", "\toauth_server\n|{\n\toauth {", "oauth_server\nrespond /.well-known/openid-configuration 500\n|{\n\torder respond before oauth_server\n\toauth {", "strict-library", "openid-configuration", "is answered 500", "oauth_server in the site"},
	{"an OpenID configuration that is half", "\toauth_server\n|{\n\toauth {", "oauth_server\nroute /.well-known/openid-configuration {\nheader Content-Type application/json\nrespond `{\"issuer\":\"https://api.example.com\"}`\n}\n|{\n\torder route before oauth_server\n\toauth {", "strict-library", "openid-configuration", "has no authorization_endpoint", ": openid, or nothing at"},
	{"preflights that nobody answers", "cors                    *", "", "inspector", "cors", "preflight for POST https://api.example.com/mcp", "cors http://localhost:6274"},
	{"preflights for another page", "cors                    *", "cors https://app.example.com", "inspector", "cors", "Access-Control-Allow-Origin", "cors http://localhost:6274"},
	{"CORS headers that are deleted", "\toauth_server\n", "oauth_server\nheader -Access-Control-Allow-Origin\n", "inspector", "cors", "Access-Control-Allow-Origin", "remove what deletes Access-Control-Allow-Origin"},
	{"CORS headers that hide the challenge", "\toauth_server\n", "oauth_server\nheader -Access-Control-Expose-Headers\n", "inspector", "cors", "cannot read WWW-Authenticate", "Access-Control-Expose-Headers"},
	{"no dynamic registration", "\t\t\tdynamic\n", "", "cursor", "", "cannot register", ":27: dynamic"},
	{"no documents", "\t\t\tmetadata_documents\n", "", "goose", "", "cannot register", ":27: metadata_documents"},
	{"no registration", registered, "", "claude", "", "cannot register", ":2: registration {\n\tmetadata_documents"},
	{"a registration that wants a token", "\t\t\tdynamic\n", "dynamic\ninitial_access_token an-initial-access-token-that-is-long\n", "cline", "registration", "asks for a token", "remove initial_access_token"},
	{"a policy against the product", "login password", "login password\nclient_policy https://claude.ai/* {\ndeny\n}", "claude-code", "", "client_policy https://claude.ai/*", "in place of deny"},
	{"a policy that forgets the product", "login password", "login password\nclient_policy https://claude.ai/* {\nscopes jobs:read\n}\nclient_policy * {\ndeny\n}", "chatgpt", "", "client_policy *", "client_policy https://chatgpt.com/* {"},
	{"a policy that forgets one redirect URI", "login password", "login password\nclient_policy https://www.cursor.com/* {\nscopes jobs:read\n}\nclient_policy * {\ndeny\n}", "cursor", "", "localhost", "client_policy loopback {"},
	{"a policy with scopes of another resource", "login password", "login password\nclient_policy https://chatgpt.com/* {\nscopes resume:read\n}", "chatgpt", "scope", "No requested scope", "in client_policy https://chatgpt.com/*: scopes"},
	{"no login", "login password", "", "goose", "sign-in", "nobody can sign in", "login password"},
	{"a button that leads nowhere", "\toauth_server\n|{\n\toauth {", "oauth_server\nrespond /oauth/consent 404\n|{\n\torder respond before oauth_server\n\toauth {", "slack", "consent", "after Allow the user would be shown: 404", "POST /oauth/consent"},
	{"a client that must prove possession", registered, "client cursor {\nredirect_uri http://localhost:8787/callback\ndpop_bound_access_tokens\n}", "cursor", "token", "dpop", "in the client cursor at "},
	{"a client that must push", registered, "client cursor {\nredirect_uri http://localhost:8787/callback\nrequire_pushed_authorization_requests\n}", "cursor", "request", "pushes no authorization requests", "remove require_pushed_authorization_requests"},
	{"a library whose scope opens nothing", "redirect_uri https://app.example.com/callback", "redirect_uri https://app.example.com/callback\nscope resume:read", "strict-library", "call", "opens nothing", "in the client library"},
	{"a partner without the grant", "grants client_credentials", "redirect_uri https://acme.example.com/callback", "partner", "", "no client of the configuration", "grants client_credentials"},
	{"a partner whose scope opens nothing", "scope  jobs:read", "scope resume:read", "partner", "token", "invalid_scope", "in the client acme"},
	{"a partner for two resources", "oauth_protect {", "oauth_protect {\nresource https://api.example.com/v1", "partner", "token", "invalid_target", "resource https://api.example.com/v1"},
	{"a step up without its scope", "\toauth_server\n|login password", "oauth_server\nheader >WWW-Authenticate `scope=\"[^\"]*\", ` ``\n|login password\nclient_policy loopback {\nscopes jobs:read\n}", "cline", "step-up", "does not say scope", "remove what changes the answers of the gate"},
	{"no callback of Claude", registered + "|client library {", "|client claude {\nredirect_uri https://claude.com/api/mcp/auth_callback\n}\nclient library {", "claude", "redirect", "not registered for it", ":18: redirect_uri https://claude.ai/api/mcp/auth_callback"},
}

// drawbacks: the product works, and not as well as it could.
var drawbacks = []broken{
	{"a GPT without a refresh token", "pkce         optional", "pkce optional\ngrants authorization_code", "chatgpt-actions", "refresh", "no refresh token", "grants authorization_code refresh_token"},
	{"a challenge without metadata", "\toauth_server\n", "oauth_server\nheader >WWW-Authenticate `Bearer realm=\"x\"`\n", "codex", "challenge", "no resource_metadata", "remove what replaces"},
	{"a challenge that is deleted and found without", "\toauth_server\n", "oauth_server\nheader -WWW-Authenticate\n", "vscode", "challenge", "no WWW-Authenticate", "remove what deletes WWW-Authenticate"},
	{"metadata that stand elsewhere", "\toauth_server\n", "oauth_server\nredir /.well-known/oauth-protected-resource/mcp /moved 307\nrewrite /moved /.well-known/oauth-protected-resource/mcp\n", "codex", "resource-metadata", "redirected to", "without a redirect"},
	{"short access tokens", "login password", "login password\naccess_token_ttl 5m", "claude", "refresh", "5m0s ahead", "access_token_ttl 15m"},
	{"no grace", "login password", "login password\nrefresh_grace 0s", "codex", "refresh", "loses an answer", "refresh_grace 60s"},
}

// config is the healthy one with what the case changes.
func (b broken) config(t *testing.T) string {
	t.Helper()
	config := healthy
	olds, news := strings.Split(b.old, "|"), strings.Split(b.new, "|")
	for i, old := range olds {
		old, everywhere := strings.CutPrefix(old, "all ")
		if !strings.Contains(config, old) {
			t.Fatalf("%q is not in the configuration", old)
		}
		n := 1
		if everywhere {
			n = -1
		}
		config = strings.Replace(config, old, news[i], n)
	}
	return config
}

// told fails the test unless the first result of this outcome is what the case
// wants.
func (b broken) told(t *testing.T, p doctor.Product, outcome doctor.Outcome) {
	t.Helper()
	i := slices.IndexFunc(p.Results, func(r doctor.Result) bool { return r.Outcome == outcome })
	if i >= 0 && p.Results[i].Check == b.check && strings.Contains(p.Results[i].Reason, b.why) && strings.Contains(p.Results[i].Mend, b.mend) {
		return
	}
	t.Errorf("%s %s %s", p.Verdict, p.Reason, p.Mend)
	for _, r := range p.Results {
		t.Logf("%s %s: %s\nwrite %s", r.Outcome, r.Check, r.Reason, r.Mend)
	}
}

// DOC-01: each product that cannot connect is told of, with the first step that
// fails, why, and what to write.
func TestDoctorNamesWhatIsBroken(t *testing.T) {
	for _, b := range fatal {
		t.Run(b.name, func(t *testing.T) {
			report, err := diagnosed(t, b.config(t), "--product", b.product)
			if err == nil {
				t.Error("the exit status is 0")
			}
			p := report.Products[0]
			if b.check != "" {
				b.told(t, p, doctor.Fail)
			} else if p.Verdict != doctor.NotServed || !strings.Contains(p.Reason, b.why) || !strings.Contains(p.Mend, b.mend) {
				t.Errorf("%s: %s\nwrite %s\n%+v", p.Verdict, p.Reason, p.Mend, p.Results)
			}
		})
	}
}

// DOC-01: what only makes it worse is a warning, and the product works.
func TestDoctorWarnsOfDrawbacks(t *testing.T) {
	for _, b := range drawbacks {
		t.Run(b.name, func(t *testing.T) {
			report, err := diagnosed(t, b.config(t), "--product", b.product)
			if err != nil || report.Products[0].Verdict != doctor.Works {
				t.Errorf("%v: %s", err, report.Products[0].Verdict)
			}
			b.told(t, report.Products[0], doctor.Warn)
		})
	}
}
