package login_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
	"github.com/caddy-scope/caddy-scope/login"
)

// APP-05: what the app did not sign, or signed for something else, signs nobody
// in. RFC 8725.
func TestTokensOfTheAppThatDoNotHoldSignNobodyIn(t *testing.T) {
	t.Parallel()
	type change = func(map[string]any)
	set := func(name string, value any) change { return func(c map[string]any) { c[name] = value } }
	without := func(name string) change { return func(c map[string]any) { delete(c, name) } }
	a := newOwnersApp(t)
	scene := newJWTScene(t, a)
	audience := newJWTScene(t, a, func(c *login.JWTConfig) {
		c.Audience, c.AuthorizedParties = []string{"authenticated"}, []string{"https://app.example"}
	})
	shared := newJWTScene(t, a, func(c *login.JWTConfig) { c.JWKS, c.Secret = "", appSecret })
	bySecret := func(key string, algorithm jose.SignatureAlgorithm, changes ...change) string {
		return signWith(t, algorithm, []byte(key), "", a.claims(changes...))
	}
	public, _ := x509.MarshalPKIXPublicKey(&a.keys.key.PublicKey)
	good := a.keys.signed(a.claims())
	header, rest, _ := strings.Cut(good, ".")
	crit := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","crit":["x"],"x":1}`))
	for name, c := range map[string]struct {
		scene *issuertest.Scene
		token string
		good  bool
	}{
		"as it should be":             {scene, good, true},
		"audience and party":          {audience, a.keys.signed(a.claims(set("aud", []string{"authenticated"}))), true},
		"shared key":                  {shared, bySecret(appSecret, jose.HS256), true},
		"cookie of supabase":          {scene, "base64-" + base64.RawURLEncoding.EncodeToString([]byte(`{"access_token":"`+good+`","refresh_token":"x"}`)), true},
		"unsigned":                    {scene, unsigned(a.claims()), false},
		"HMAC by the public key":      {scene, signWith(t, jose.HS256, public, a.keys.keys[0].KeyID, a.claims()), false},
		"HMAC by the public JWK":      {scene, bySecret(string(must(json.Marshal(a.keys.keys[0]))), jose.HS256), false},
		"another key":                 {scene, newProvider(t).signed(a.claims()), false},
		"another shared key":          {shared, bySecret(strings.Repeat("x", 40), jose.HS256), false},
		"other HMAC than is allowed":  {shared, bySecret(appSecret, jose.HS512), false},
		"asymmetric, with shared key": {shared, good, false},
		"no key, unsigned":            {shared, unsigned(a.claims()), false},
		"unknown critical header":     {scene, crit + "." + rest, false},
		"two signatures":              {scene, good + "." + rest, false},
		"header of another token":     {scene, header + "A." + rest, false},
		"another issuer":              {scene, a.keys.signed(a.claims(set("iss", "https://evil.example"))), false},
		"no issuer":                   {scene, a.keys.signed(a.claims(without("iss"))), false},
		"audience that was not asked": {scene, a.keys.signed(a.claims(set("aud", "another"))), false},
		"another audience":            {audience, a.keys.signed(a.claims(set("aud", "another"))), false},
		"no audience":                 {audience, a.keys.signed(a.claims()), false},
		"another party":               {audience, a.keys.signed(a.claims(set("aud", "authenticated"), set("azp", "https://evil.example"))), false},
		"no party":                    {audience, a.keys.signed(a.claims(set("aud", "authenticated"), without("azp"))), false},
		"expired":                     {scene, a.keys.signed(a.claims(set("exp", time.Now().Add(-time.Minute).Unix()))), false},
		"without end":                 {scene, a.keys.signed(a.claims(without("exp"))), false},
		"end is a text":               {scene, a.keys.signed(a.claims(set("exp", "4102444800"))), false},
		"end is beyond all time":      {scene, a.keys.signed(a.claims(set("exp", 1e300))), false},
		"not valid yet":               {scene, a.keys.signed(a.claims(set("nbf", time.Now().Add(time.Hour).Unix()))), false},
		"nbf is a text":               {scene, a.keys.signed(a.claims(set("nbf", "now"))), false},
		"of the future":               {scene, a.keys.signed(a.claims(set("iat", time.Now().Add(time.Hour).Unix()))), false},
		"no subject":                  {scene, a.keys.signed(a.claims(set("sub", ""))), false},
		"subject with a line end":     {scene, a.keys.signed(a.claims(set("sub", "ada\n1"))), false},
		"too large":                   {scene, a.keys.signed(a.claims(set("x", strings.Repeat("x", 20<<10)))), false},
		"no token at all":             {scene, "x", false},
		"as JSON":                     {scene, `{"payload":"e30","signatures":[]}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := c.scene.Browser(t)
			b.SetCookie(appCookie, url.PathEscape(c.token))
			page := b.Authorize("cli").Follow()
			if got := b.Cookie("oauth_login") != "" && page.Has("Allow"); got != c.good {
				t.Errorf("signed in: %v; %d %s %s", got, page.Status, page.Location(), page.Text())
			}
		})
	}
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}

// APP-06: two cookies of one name are nobody's word: one of them was planted.
func TestCookieThatCameTwiceSignsNobodyIn(t *testing.T) {
	t.Parallel()
	a := newOwnersApp(t)
	scene := newJWTScene(t, a)
	b := scene.Browser(t)
	other := a.claims(func(c map[string]any) { c["sub"] = "eve" })
	b.Header["Cookie"] = []string{appCookie + "=" + a.keys.signed(other) + "; " + appCookie + "=" + a.keys.signed(a.claims())}
	if page := b.Authorize("cli"); !strings.HasPrefix(page.Location(), a.URL+"/sign-in?") {
		t.Errorf("%d %s %s", page.Status, page.Location(), page.Text())
	}
	// In pieces, as browsers need it of large ones.
	b = scene.Browser(t)
	token := a.keys.signed(a.claims())
	b.SetCookie(appCookie+".0", token[:100])
	b.SetCookie(appCookie+".1", token[100:])
	b.Authorize("cli").Follow().Allow().Code()
}

// APP-07: the app's keys are read anew when they change, and not for every bad
// token; while they cannot be had, a page says so and nobody is signed in.
func TestKeysOfTheAppMayRotateAndFail(t *testing.T) {
	t.Parallel()
	a := newOwnersApp(t)
	scene := newJWTScene(t, a)
	a.keys.set(func(p *provider) { p.down = true })
	b := scene.Browser(t)
	b.SetCookie(appCookie, a.keys.signed(a.claims()))
	page := b.Authorize("cli")
	page.WantPage(http.StatusServiceUnavailable, "Job Board does not answer")
	if page.Header.Get("Retry-After") == "" || signedInAt(t, scene, b) {
		t.Errorf("Retry-After %q", page.Header.Get("Retry-After"))
	}
	a.keys.set(func(p *provider) { p.down = false })
	scene.Clock.Advance(11 * time.Second)
	b.SetCookie(appCookie, a.keys.signed(a.claims()))
	b.Authorize("cli").Follow().Allow().Code()

	a.keys.set(func(p *provider) { p.rotate() })
	scene.Clock.Advance(11 * time.Second)
	b = scene.Browser(t)
	b.SetCookie(appCookie, a.keys.signed(a.claims()))
	b.Authorize("cli").Follow().Allow().Code()

	stranger := newProvider(t)
	before := a.keys.reads
	for range 20 {
		b := scene.Browser(t)
		b.SetCookie(appCookie, stranger.signed(a.claims()))
		b.Authorize("cli")
	}
	if n := a.keys.reads - before; n > 2 {
		t.Errorf("20 bad tokens made us read the keys %d times", n)
	}
}
