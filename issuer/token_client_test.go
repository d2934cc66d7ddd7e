package issuer_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// probe is a grant that fails only after the client is authenticated.
var probe = url.Values{"grant_type": {"authorization_code"}, "code": {"gpt_ac_unknown"}}

func withClient(id, secret string) url.Values {
	form := url.Values{"client_id": {id}}
	if secret != "" {
		form.Set("client_secret", secret)
	}
	for name, values := range probe {
		form[name] = values
	}
	return form
}

// T-20, T-23, PROTOCOL 1.6.7, trap 20: one answer to all that fails.
func TestFailedClientAuthenticationLooksTheSame(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	scene.Clients.Register(t, issuer.Client{ID: "disabled", AuthMethods: []string{"client_secret_post"}, Grants: []string{"authorization_code"},
		SecretDigests: []issuer.Digest{issuer.HashClientSecret(issuertest.Secret)}, RedirectURIs: []string{"https://d.example/cb"}})
	scene.SQL(t, "UPDATE gpt_clients SET disabled_at = now() WHERE client_id = 'disabled'")
	var first string
	for name, form := range map[string]url.Values{
		"unknown": withClient("nobody", "x"), "unknown, no secret": withClient("nobody", ""), "wrong secret": withClient(issuertest.Confidential, "wrong"),
		"no secret": withClient(issuertest.Confidential, ""), "public with a secret": withClient(issuertest.Public, issuertest.Secret),
		"disabled": withClient("disabled", issuertest.Secret), "nobody at all": probe, "secret alone": {"client_secret": {issuertest.Secret}, "grant_type": {"authorization_code"}},
	} {
		r := scene.PostForm("/oauth/token", form)
		wantOAuthError(t, r, 401, "invalid_client")
		if first == "" {
			first = r.Body
		}
		if r.Body != first {
			t.Errorf("%s differs: %s, %s", name, r.Body, first)
		}
	}
	// A client uses the method it is registered for.
	r := scene.PostForm("/oauth/token", probe, issuertest.Basic(issuertest.GPT, issuertest.Secret))
	wantOAuthError(t, r, 401, "invalid_client")
	if !strings.HasPrefix(r.Header.Get("WWW-Authenticate"), "Basic ") {
		t.Errorf("no challenge: %v", r.Header)
	}
	wantOAuthError(t, scene.PostForm("/oauth/token", withClient(issuertest.Confidential, issuertest.Secret), issuertest.Basic(issuertest.Confidential, issuertest.Secret)), 400, "invalid_request")
}

// T-21, PROTOCOL 8.17, trap 22, trap 26: Basic holds form-encoded parts, and clients that do not encode.
func TestBasicCredentialsAreReadInEveryHonestSpelling(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	const id, secret = "odd:client", "s:e+c%r ét&=/of-enough-characters-to-be-one"
	scene.Clients.Register(t, issuer.Client{ID: id, AuthMethods: []string{"client_secret_basic"}, Grants: []string{"authorization_code"},
		SecretDigests: []issuer.Digest{issuer.HashClientSecret(secret)}, RedirectURIs: []string{"https://d.example/cb"}})
	plus := "a+secret+that+is+not+encoded+but+long+enough"
	scene.Clients.Register(t, issuer.Client{ID: "plain", AuthMethods: []string{"client_secret_basic"}, Grants: []string{"authorization_code"},
		SecretDigests: []issuer.Digest{issuer.HashClientSecret(plus)}, RedirectURIs: []string{"https://d.example/cb"}})
	encode := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	escaped := encode(url.QueryEscape(id) + ":" + url.QueryEscape(secret))
	for name, c := range map[string]struct {
		field string
		ok    bool
	}{
		"encoded": {"Basic " + escaped, true}, "lower case": {"basic " + escaped, true}, "not encoded": {"Basic " + encode("plain:"+plus), true},
		"%20 for the space": {"Basic " + encode(url.PathEscape(id)+":"+strings.ReplaceAll(url.QueryEscape(secret), "+", "%20")), false}, // PathEscape leaves the colon: another id
		"no base64":         {"Basic !!", false}, "no colon": {"Basic " + encode("plain"), false}, "empty": {"Basic ", false}, "empty id": {"Basic " + encode(":x"), false},
		"bad percent": {"Basic " + encode("plain:%zz"), false}, "other scheme": {"Bearer " + escaped, false}, "no scheme": {escaped, false}, "newline inside": {"Basic " + encode("plain:"+plus+"\n"), false},
		"NUL": {"Basic " + encode("pl\x00ain:x"), false}, "huge": {"Basic " + encode("plain:"+strings.Repeat("x", 100_000)), false},
	} {
		r := scene.PostForm("/oauth/token", probe, issuertest.Header("Authorization", c.field))
		if c.ok {
			wantOAuthError(t, r, 400, "invalid_grant") // authenticated, the code is unknown
			continue
		}
		if r.Status != 401 || !strings.HasPrefix(r.Header.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("%s: %d %s %v", name, r.Status, r.Body, r.Header)
		}
	}
}

// T-21: many libraries try Basic first, or know nothing else, and send `id:` for
// a public client. It opens nothing for a client that has a secret or keys.
func TestEmptySecretIsNone(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	public := issuertest.Basic(issuertest.Public, "")
	code, verifier := scene.Code(t, issuertest.Public)
	form := codeForm(issuertest.Public, issuertest.PublicRedirect, code, verifier, issuertest.Omit("client_id"))
	r := scene.PostForm("/oauth/token", form, public)
	if r.Status != http.StatusOK {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	refresh := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {r.Tokens().Refresh}, "client_id": {issuertest.Public}}
	if r := scene.PostForm("/oauth/token", refresh, public); r.Status != http.StatusOK {
		t.Errorf("with the client_id in the body too: %d %s", r.Status, r.Body)
	}
	for name, auth := range map[string]issuertest.Auth{
		"a client with a secret":     issuertest.Basic(issuertest.Confidential, ""),
		"an unknown client":          issuertest.Basic("nobody", ""),
		"a public one with a secret": issuertest.Basic(issuertest.Public, "x"),
		"nobody":                     issuertest.Basic("", ""),
	} {
		if r := scene.PostForm("/oauth/token", probe, auth); r.Status != 401 || r.Error() != "invalid_client" || !strings.HasPrefix(r.Header.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("%s: %d %s %v", name, r.Status, r.Body, r.Header)
		}
	}
	if r := scene.PostForm("/oauth/introspect", url.Values{"token": {"x"}}, public); r.Error() != "invalid_client" {
		t.Errorf("a public client introspects: %d %s", r.Status, r.Body)
	}
}

// T-19: the guesser is throttled, by client and address; others are not.
func TestSecretGuessingIsThrottledForTheGuesser(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	throttled := false
	for i := range 30 {
		r := scene.PostForm("/oauth/token", withClient(issuertest.Confidential, "wrong"), issuertest.Header("X-Forwarded-For", "203.0.113."+string(rune('0'+i%10))))
		if throttled = r.Status == http.StatusTooManyRequests; throttled {
			if r.Header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			break
		}
		wantOAuthError(t, r, 401, "invalid_client")
		if i >= 10 {
			t.Fatalf("attempt %d is not throttled", i+1)
		}
	}
	if !throttled {
		t.Fatal("never throttled")
	}
	wantOAuthError(t, scene.PostForm("/oauth/token", withClient(issuertest.GPT, issuertest.Secret)), 400, "invalid_grant")
}

// T-25, T-26, T-27, V-01, PROTOCOL 8.17, trap 22: what is no form is refused, never 5xx, and its
// secrets are nowhere in the log.
func TestMalformedTokenRequestsAreRefused(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	const form = "application/x-www-form-urlencoded"
	good := withClient(issuertest.Confidential, issuertest.Secret).Encode()
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, _ = w.Write([]byte(good))
	_ = w.Close()
	many := strings.Builder{}
	for range 10_000 {
		many.WriteString("a=b&")
	}
	distinct := strings.Builder{}
	for i := range 100 {
		distinct.WriteString(strings.Repeat("a", i+1) + "=b&")
	}
	for _, path := range []string{"/oauth/token", "/oauth/revoke", "/oauth/introspect", "/oauth/par", "/oauth/device_authorization"} {
		for name, c := range map[string]struct {
			method, query, contentType, body string
			status                           int
		}{
			"GET":               {"GET", "?" + good, "", "", 405},
			"PUT":               {"PUT", "", form, good, 405},
			"query":             {"POST", "?" + good, form, "", 400},
			"query and body":    {"POST", "?x=1", form, good, 400},
			"JSON":              {"POST", "", "application/json", `{"client_secret":"` + issuertest.Secret + `"}`, 400},
			"multipart":         {"POST", "", "multipart/form-data; boundary=x", "--x\r\n\r\n--x--", 400},
			"text":              {"POST", "", "text/plain; x=" + form, good, 400},
			"no type":           {"POST", "", "", good, 400},
			"bad type":          {"POST", "", "a;;;=/", good, 400},
			"bad escape":        {"POST", "", form, good + "&x=%zz", 400},
			"semicolon":         {"POST", "", form, strings.ReplaceAll(good, "&", ";"), 400},
			"repeated":          {"POST", "", form, good + "&client_id=x", 400},
			"repeated the same": {"POST", "", form, good + "&" + good, 400},
			"empty repeated":    {"POST", "", form, good + "&client_id=", 400},
			"1 MB":              {"POST", "", form, good + "&x=" + strings.Repeat("x", 1<<20), 413},
			"10,000 parameters": {"POST", "", form, many.String() + good, 400},
			"100 names":         {"POST", "", form, distinct.String() + good, 400},
			"empty":             {"POST", "", form, "", 401},
			"NUL":               {"POST", "", form, "client_id=%00&grant_type=%00&token=%00", 401},
			"not UTF-8":         {"POST", "", form, "client_id=%ff%fe&grant_type=%ff&token=%ff", 401},
		} {
			r, err := http.NewRequest(c.method, scene.URL+path+c.query, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if c.contentType != "" {
				r.Header.Set("Content-Type", c.contentType)
			}
			got := scene.Do(r)
			if name == "100 names" && !strings.Contains(got.Body, "too many parameters") {
				t.Errorf("%s %s: %s", path, name, got.Body)
			}
			if got.Status != c.status || got.Header.Get("Set-Cookie") != "" {
				t.Errorf("%s %s: %d %s, want %d", path, name, got.Status, got.Body, c.status)
			}
		}
		for name, want := range map[string]int{form + "; charset=utf-8": 400, form + ";charset=UTF-8": 400, "Application/X-WWW-Form-Urlencoded": 400} {
			r := scene.PostForm(path, withClient(issuertest.Confidential, issuertest.Secret), issuertest.Header("Content-Type", name))
			if r.Status != want || strings.Contains(r.Body, "must be application") {
				t.Errorf("%s %s: %d %s", path, name, r.Status, r.Body)
			}
		}
		r, _ := http.NewRequest("POST", scene.URL+path, &zipped)
		r.Header.Set("Content-Type", form)
		r.Header.Set("Content-Encoding", "gzip")
		if got := scene.Do(r); got.Status != 400 {
			t.Errorf("%s gzip: %d", path, got.Status)
		}
	}
	for _, entry := range scene.Logs.All() {
		if line := entry.Message + " " + strings.Join(fieldText(entry.ContextMap()), " "); strings.Contains(line, issuertest.Secret) {
			t.Errorf("the log has the secret: %s", line)
		}
	}
}
