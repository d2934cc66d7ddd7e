package issuer_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jwt"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// published are the parameters by which a published client asks.
var toPublished = issuertest.Set("redirect_uri", issuertest.ClientHostRedirect)

// selfTokens has ada allow a client that registered itself.
func selfTokens(t *testing.T, scene *issuertest.Scene, clientID string, params ...issuertest.Param) issuertest.Tokens {
	t.Helper()
	return scene.Tokens(t, clientID, append([]issuertest.Param{toPublished}, params...)...)
}

func refreshAs(scene *issuertest.Scene, clientID, token string, more ...issuertest.Param) issuertest.Response {
	form := url.Values{"grant_type": {"refresh_token"}, "client_id": {clientID}, "refresh_token": {token}}
	for _, param := range more {
		param(form)
	}
	return scene.PostForm("/oauth/token", form)
}

// A client that nobody wrote down: its client_id is the URL of its document. The
// consent page names that host. PROTOCOL 8.15, REG-17, REG-18, REG-20.
func TestMetadataDocumentMakesAClient(t *testing.T) {
	t.Parallel()
	host := issuertest.NewClientHost(t)
	scene := issuertest.New(t, issuertest.SelfRegistration(host))
	id := host.Publish("/oauth/client.json", nil)
	if got := scene.Get("/.well-known/oauth-authorization-server"); got.JSON["client_id_metadata_document_supported"] != true {
		t.Errorf("metadata: %s", got.Body)
	}
	page := scene.Browser(t).Authorize(id, toPublished).SignIn()
	if text := page.Text(); !strings.Contains(text, "published by "+host.Name()) || !strings.Contains(text, "chat.example") || !strings.Contains(text, "Chat wants access") {
		t.Errorf("the consent page says %q", text)
	}
	tokens := selfTokens(t, scene, id)
	if got := refreshAs(scene, id, tokens.Refresh); got.Status != http.StatusOK {
		t.Errorf("refresh: %d %s", got.Status, got.Body)
	}
	if n := host.Hits("/oauth/client.json"); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	// Another redirect is not its.
	scene.Browser(t).Authorize(id, issuertest.Set("redirect_uri", "https://evil.example/cb")).WantPage(http.StatusBadRequest, "This link does not work")
	// Scopes that its publisher names bound whoever uses its name.
	narrow := host.Publish("/narrow.json", func(document map[string]any) { document["scope"] = "jobs:read" })
	scene.Browser(t).Authorize(narrow, toPublished, issuertest.Set("scope", "resume:read")).WantPage(http.StatusBadRequest, "The app that sent you here made a mistake")
}

// REG-20: off by default. Nothing is fetched, nothing stands in the metadata.
func TestNobodyRegistersWhereItIsOff(t *testing.T) {
	t.Parallel()
	host := issuertest.NewClientHost(t)
	scene := issuertest.New(t)
	scene.Browser(t).Authorize(host.Publish("/c.json", nil), toPublished).WantPage(http.StatusBadRequest, "This link does not work")
	if host.Hits("/c.json") != 0 {
		t.Error("fetched")
	}
	got := scene.Get("/.well-known/oauth-authorization-server")
	for _, member := range []string{"registration_endpoint", "client_id_metadata_document_supported"} {
		if _, has := got.JSON[member]; has {
			t.Errorf("%s stands in the metadata", member)
		}
	}
	if got := scene.SendJSON(http.MethodPost, "/oauth/register", map[string]any{"redirect_uris": []string{"https://a.example/cb"}}); got.Status != http.StatusNotFound {
		t.Errorf("%d", got.Status)
	}
}

// C-07, C-10, D-01, PROTOCOL 8.15, REG-12, REG-13, REG-16, trap 24: documents that are fetched and make no client: a page, no
// redirect, no row; at the token endpoint invalid_client; the reason is in the
// log alone.
func TestHostileDocumentsMakeNoClient(t *testing.T) {
	t.Parallel()
	host := issuertest.NewClientHost(t)
	scene := issuertest.New(t, issuertest.SelfRegistration(host), issuertest.With(func(c *issuer.Config) {
		var mu sync.Mutex
		at := time.Now()
		// Each look at the clock is a second later: none of the bounds on fetches is
		// what refuses.
		c.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); at = at.Add(time.Second); return at }
	}))
	set := func(name string, value any) func(map[string]any) {
		return func(d map[string]any) { d[name] = value }
	}
	redirects := func(uris ...string) func(map[string]any) { return set("redirect_uris", uris) }
	cases := map[string]func(map[string]any){
		"client_id of another":        set("client_id", "https://chatgpt.com/oauth/client.json"),
		"client_id with a slash more": func(d map[string]any) { d["client_id"] = d["client_id"].(string) + "/" },
		"client_id in upper case":     func(d map[string]any) { d["client_id"] = strings.ToUpper(d["client_id"].(string)) },
		"client_id missing":           func(d map[string]any) { delete(d, "client_id") },
		"client_id null":              set("client_id", nil),
		"client_id a list":            func(d map[string]any) { d["client_id"] = []any{d["client_id"]} },
		"client_id of another case":   func(d map[string]any) { d["Client_ID"] = d["client_id"]; delete(d, "client_id") },
		"no name":                     func(d map[string]any) { delete(d, "client_name") },
		"an invisible name":           set("client_name", "\u200b\u202e"),
		"name a number":               set("client_name", 1),
		"no redirect":                 func(d map[string]any) { delete(d, "redirect_uris") },
		"empty redirects":             redirects(),
		"redirects null":              set("redirect_uris", nil),
		"redirects a string":          set("redirect_uris", issuertest.ClientHostRedirect),
		"too many redirects": func(d map[string]any) {
			d["redirect_uris"] = strings.Split(strings.Repeat("https://a.example/ ", 21)+"https://a.example/", " ")
		},
		"javascript redirect":          redirects(issuertest.ClientHostRedirect, "javascript:alert(1)"),
		"JavaScript redirect, upper":   redirects("JAVASCRIPT:alert(1)"),
		"javascript after a space":     redirects(" javascript:alert(1)"),
		"javascript with a tab":        redirects("java\tscript:alert(1)"),
		"javascript, escaped break":    redirects("java%0ascript:alert(1)"),
		"data redirect":                redirects("data:text/html,x"),
		"vbscript redirect":            redirects("vbscript:x"),
		"file redirect":                redirects("file:///etc/passwd"),
		"blob redirect":                redirects("blob:https://a.example/x"),
		"about redirect":               redirects("about:blank"),
		"plain http redirect":          redirects("http://a.example/cb"),
		"redirect with a fragment":     redirects("https://a.example/cb#x"),
		"redirect with a user":         redirects("https://a@b.example/cb"),
		"relative redirect":            redirects("/cb"),
		"wildcard redirect":            redirects("https://*.example/cb"),
		"client_secret":                set("client_secret", "hunter2"),
		"empty client_secret":          set("client_secret", ""),
		"client_secret_expires_at":     set("client_secret_expires_at", 0),
		"registration_access_token":    set("registration_access_token", "x"),
		"method client_secret_basic":   set("token_endpoint_auth_method", "client_secret_basic"),
		"method client_secret_post":    set("token_endpoint_auth_method", "client_secret_post"),
		"method client_secret_jwt":     set("token_endpoint_auth_method", "client_secret_jwt"),
		"unknown method":               set("token_endpoint_auth_method", "tls_client_auth"),
		"private_key_jwt without keys": set("token_endpoint_auth_method", "private_key_jwt"),
		"only secret methods":          set("token_endpoint_auth_methods_supported", []string{"client_secret_basic", "client_secret_post"}),
		"no method at all":             set("token_endpoint_auth_methods_supported", []string{}),
		"methods a string":             set("token_endpoint_auth_methods_supported", "none"),
		"a private key":                set("jwks", map[string]any{"keys": []any{map[string]any{"kty": "EC", "crv": "P-256", "x": "x", "y": "y", "d": "d"}}}),
		"a symmetric key":              set("jwks", map[string]any{"keys": []any{map[string]any{"kty": "oct", "k": "AAAA"}}}),
		"jwks no set":                  set("jwks", "x"),
		"jwks_uri http":                set("jwks_uri", "http://127.0.0.1/keys"),
		"jwks_uri of a decimal host":   set("jwks_uri", "https://2130706433/keys"),
		"software statement":           set("software_statement", "eyJhbGciOiJub25lIn0.e30."),
		"only client_credentials":      set("grant_types", []string{"client_credentials"}),
		"only implicit":                set("grant_types", []string{"implicit"}),
		"response_type token":          set("response_types", []string{"token"}),
		"malformed scope":              set("scope", "jobs:read\n"),
		"application_type nonsense":    set("application_type", "admin"),
	}
	raw := map[string]string{
		"empty":                   ``,
		"null":                    `null`,
		"a list":                  `[{"client_id":"ID","client_name":"x","redirect_uris":["https://a.example/"]}]`,
		"a string":                `"x"`,
		"two documents":           `{"client_id":"ID","client_name":"x","redirect_uris":["https://a.example/"]}{}`,
		"a member twice":          `{"client_id":"ID","client_id":"ID","client_name":"x","redirect_uris":["https://a.example/"]}`,
		"another redirect_uris":   `{"client_id":"ID","client_name":"x","redirect_uris":["https://a.example/"],"redirect_uris":["https://evil.example/"]}`,
		"a member twice, escaped": `{"client_id":"ID","client_name":"x","redirect_uris":["https://a.example/"],"redirect\u005furis":["https://evil.example/"]}`,
		"twice, further down":     `{"client_id":"ID","client_name":"x","redirect_uris":["https://a.example/"],"x":{"y":1,"y":2}}`,
		"not UTF-8":               "{\"client_id\":\"ID\",\"client_name\":\"\xff\",\"redirect_uris\":[\"https://a.example/\"]}",
		"byte order mark":         "\xef\xbb\xbf" + `{"client_id":"ID","client_name":"x","redirect_uris":["https://a.example/"]}`,
		"too deep":                `{"client_id":"ID","client_name":"x","redirect_uris":["https://a.example/"],"x":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `}`,
		"comments":                `{"client_id":"ID","client_name":"x","redirect_uris":["https://a.example/"]/**/}`,
		"too long":                `{"client_id":"ID","client_name":"x","redirect_uris":["https://a.example/"],"x":"` + strings.Repeat("x", 5<<10) + `"}`,
	}
	n := 0
	refused := func(name string, id string) {
		t.Helper()
		if page := scene.Browser(t).Authorize(id, toPublished); page.Status != http.StatusBadRequest || page.Location() != "" || page.Heading() != "This link does not work" {
			t.Errorf("%s: %d %q %s", name, page.Status, page.Heading(), page.Location())
		}
		if got := refreshAs(scene, id, "x"); got.Status != http.StatusUnauthorized || got.Error() != "invalid_client" {
			t.Errorf("%s: token endpoint: %d %s", name, got.Status, got.Body)
		}
	}
	for name, change := range cases {
		n++
		refused(name, host.Publish(fmt.Sprintf("/%d.json", n), change))
	}
	for name, body := range raw {
		n++
		path := fmt.Sprintf("/%d.json", n)
		host.Answer(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(strings.ReplaceAll(body, "ID", host.URL(path))))
		})
		refused(name, host.URL(path))
		if host.Hits(path) == 0 {
			t.Errorf("%s: was not fetched: the test proves nothing", name)
		}
	}
	if rows := scene.SQL(t, "SELECT client_id FROM gpt_clients WHERE client_id LIKE 'https:%'"); len(rows) > 0 {
		t.Errorf("rows: %v", rows)
	}
	if scene.Logs.FilterMessage("client metadata document refused").Len() < n {
		t.Error("the log does not say why")
	}
	// What was no document is not remembered: once it is one, it makes a client.
	scene.Browser(t).Authorize(host.Publish("/1.json", nil), toPublished).WantPage(http.StatusOK, "Sign in")
}

// PROTOCOL 2.2, PROTOCOL 8.15, trap 21: ChatGPT publishes both methods and a singular one
// beside them. Either will do.
func TestDocumentWithSeveralMethodsMayUseAny(t *testing.T) {
	t.Parallel()
	host := issuertest.NewClientHost(t)
	scene := issuertest.New(t, issuertest.SelfRegistration(host))
	publishKey := func() jwk.Key {
		private, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		key, _ := jwk.FromRaw(private)
		_ = key.Set(jwk.KeyIDKey, uuid.NewString())
		public, _ := key.PublicKey()
		host.Answer("/jwks.json", issuertest.JSON(map[string]any{"keys": []any{public, map[string]string{"kty": "OKP", "crv": "X25519", "x": "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"}}}))
		return key
	}
	key := publishKey()
	id := host.Publish("/client.json", func(d map[string]any) {
		d["token_endpoint_auth_methods_supported"] = []string{"none", "private_key_jwt", "client_secret_post"}
		d["token_endpoint_auth_method"] = "private_key_jwt"
		d["token_endpoint_auth_signing_alg"] = "RS256"
		d["jwks_uri"] = host.URL("/jwks.json")
	})
	asserted := func(key jwk.Key) issuertest.Param {
		token, err := jwt.NewBuilder().Issuer(id).Subject(id).Audience([]string{scene.URL}).JwtID(uuid.NewString()).Expiration(scene.Clock.Now().Add(time.Minute)).Build()
		if err != nil {
			t.Fatal(err)
		}
		signed, err := jwt.Sign(token, jwt.WithKey(jwa.ES256, key))
		if err != nil {
			t.Fatal(err)
		}
		return func(v url.Values) {
			v.Set("client_assertion", string(signed))
			v.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		}
	}
	tokens := selfTokens(t, scene, id) // none
	if got := refreshAs(scene, id, tokens.Refresh, asserted(key)); got.Status != http.StatusOK {
		t.Errorf("private_key_jwt: %d %s", got.Status, got.Body)
	}
	if got := refreshAs(scene, id, tokens.Refresh, issuertest.Set("client_secret", "x")); got.Error() != "invalid_client" {
		t.Errorf("a secret: %d %s", got.Status, got.Body)
	}
	// New keys are seen, and not for every stranger who signs with his own.
	key = publishKey()
	scene.Clock.Advance(2 * time.Minute)
	if got := refreshAs(scene, id, tokens.Refresh, asserted(key)); got.Status != http.StatusOK {
		t.Errorf("after a rotation: %d %s", got.Status, got.Body)
	}
	hits := host.Hits("/jwks.json")
	strange, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	foreign, _ := jwk.FromRaw(strange)
	for range 3 {
		if got := refreshAs(scene, id, tokens.Refresh, asserted(foreign)); got.Error() != "invalid_client" {
			t.Errorf("a stranger's key: %d %s", got.Status, got.Body)
		}
	}
	if host.Hits("/jwks.json") != hits {
		t.Error("a stranger's signature makes us ask for the keys")
	}
}

// C-09, REG-16: kept as the host says, within our own bounds; many at once fetch once;
// no more than so many fetches in a minute.
func TestDocumentIsFetchedSeldom(t *testing.T) {
	t.Parallel()
	host := issuertest.NewClientHost(t)
	scene := issuertest.New(t, issuertest.SelfRegistration(host))
	for name, c := range map[string]struct {
		cacheControl string
		want         time.Duration
	}{
		"nothing said": {"", time.Hour},
		"no-store":     {"no-store", time.Minute},
		"a second":     {"max-age=1", time.Minute},
		"ten minutes":  {"max-age=600", 10 * time.Minute},
		"a year":       {"max-age=31536000", 24 * time.Hour},
	} {
		id := host.Publish("/"+strings.ReplaceAll(name, " ", "-")+".json", nil)
		path := strings.TrimPrefix(id, host.URL(""))
		host.Answer(path, func(w http.ResponseWriter, r *http.Request) {
			if c.cacheControl != "" {
				w.Header().Set("Cache-Control", c.cacheControl)
			}
			time.Sleep(100 * time.Millisecond)
			issuertest.JSON(map[string]any{"client_id": id, "client_name": "Chat", "redirect_uris": []string{issuertest.ClientHostRedirect}})(w, r)
		})
		var all sync.WaitGroup
		for range 10 {
			b := scene.Browser(t)
			all.Go(func() { b.Authorize(id, toPublished) })
		}
		all.Wait()
		if n := host.Hits(path); n != 1 {
			t.Errorf("%s: ten at once fetched %d times", name, n)
		}
		kept := scene.SQL(t, "SELECT round(extract(epoch FROM fresh_until - fetched_at))::int FROM gpt_client_documents WHERE client_id = $1", id)
		if len(kept) != 1 || fmt.Sprint(kept[0][0]) != fmt.Sprint(int(c.want.Seconds())) {
			t.Errorf("%s: kept for %v s, want %v", name, kept, c.want.Seconds())
		}
	}
	for i := range 60 {
		scene.Browser(t).Authorize(host.URL(fmt.Sprintf("/flood/%d.json", i)), toPublished)
	}
	fetched := 0
	for i := range 60 {
		fetched += host.Hits(fmt.Sprintf("/flood/%d.json", i))
	}
	if fetched == 0 || fetched > 30 {
		t.Errorf("%d of 60 were fetched within a minute", fetched)
	}
}

// C-11: a document that changed after the user allowed it is asked about again,
// and the page says so; also when it changes while the page is open.
func TestChangedDocumentIsAskedAboutAgain(t *testing.T) {
	t.Parallel()
	host := issuertest.NewClientHost(t)
	scene := issuertest.New(t, issuertest.SelfRegistration(host))
	id := host.Publish("/client.json", nil)
	stale := func() {
		scene.SQL(t, "UPDATE gpt_client_documents SET fresh_until = now() - interval '1 second'")
	}
	selfTokens(t, scene, id)
	b := scene.Browser(t)
	b.Authorize(id, toPublished).SignIn().Code() // nothing left to ask

	// What users do not see changes nothing.
	host.Publish("/client.json", func(d map[string]any) { d["logo_uri"] = "https://chat.example/new.png" })
	stale()
	b.Authorize(id, toPublished).Code()

	host.Publish("/client.json", func(d map[string]any) {
		d["redirect_uris"] = []string{issuertest.ClientHostRedirect, "https://chat.example/other"}
	})
	stale()
	page := b.Authorize(id, toPublished)
	if !strings.Contains(page.Text(), "has changed what it says about itself") {
		t.Errorf("%d %s %s", page.Status, page.Location(), page.Text())
	}
	// It changes once more before Allow is pressed: the same question again.
	host.Publish("/client.json", func(d map[string]any) { d["client_name"] = "Chat Deluxe" })
	stale()
	if page = page.Allow(); page.Location() != "" || !strings.Contains(page.Text(), "Chat Deluxe") {
		t.Errorf("allowed unseen: %d %s %s", page.Status, page.Location(), page.Text())
	}
	page.Allow().Code()
	b.Authorize(id, toPublished).Code()
}

// A host that is down takes nobody's access away; one that says the document is
// gone does.
func TestOutageOfTheHostIsNotTheUsers(t *testing.T) {
	t.Parallel()
	host := issuertest.NewClientHost(t)
	scene := issuertest.New(t, issuertest.SelfRegistration(host))
	id := host.Publish("/client.json", nil)
	tokens := selfTokens(t, scene, id)
	scene.SQL(t, "UPDATE gpt_client_documents SET fresh_until = now() - interval '1 hour'")
	host.Answer("/client.json", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	if got := refreshAs(scene, id, tokens.Refresh); got.Status != http.StatusOK {
		t.Errorf("an hour stale: %d %s", got.Status, got.Body)
	}
	scene.SQL(t, "UPDATE gpt_client_documents SET fresh_until = now() - interval '25 hours'")
	if got := refreshAs(scene, id, tokens.Refresh); got.Error() != "invalid_client" {
		t.Errorf("a day stale: %d %s", got.Status, got.Body)
	}
	scene.SQL(t, "UPDATE gpt_client_documents SET fresh_until = now() - interval '1 hour'")
	host.Answer("/client.json", http.NotFound)
	for _, answer := range []http.HandlerFunc{http.NotFound, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }} {
		host.Answer("/client.json", answer)
		if got := refreshAs(scene, id, tokens.Refresh); got.Error() != "invalid_client" {
			t.Errorf("gone: %d %s", got.Status, got.Body)
		}
	}
}

// A client that is switched off in SQL is off, whatever its host publishes.
func TestDisabledDocumentStaysOff(t *testing.T) {
	t.Parallel()
	host := issuertest.NewClientHost(t)
	scene := issuertest.New(t, issuertest.SelfRegistration(host))
	id := host.Publish("/client.json", nil)
	tokens := selfTokens(t, scene, id)
	scene.SQL(t, "UPDATE gpt_clients SET disabled_at = now() WHERE client_id = $1", id)
	scene.SQL(t, "UPDATE gpt_client_documents SET fresh_until = now() - interval '1 hour'")
	if got := refreshAs(scene, id, tokens.Refresh); got.Error() != "invalid_client" {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	scene.Browser(t).Authorize(id, toPublished).WantPage(http.StatusBadRequest, "This link does not work")
	if n := host.Hits("/client.json"); n != 1 {
		t.Errorf("fetched %d times", n)
	}
}
