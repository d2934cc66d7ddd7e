package issuer_test

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
	"github.com/caddy-scope/caddy-scope/ratelimit"
)

// rated configures rates, such as "token 3/h per client".
func rated(rates ...issuer.EndpointRate) issuertest.Option {
	return issuertest.With(func(c *issuer.Config) {
		c.Rates = rates
		c.ClientAddress = func(r *http.Request) netip.Addr { // the test's own, for once
			address, err := netip.ParseAddr(r.Header.Get("Test-Address"))
			if err != nil {
				return netip.MustParseAddr("127.0.0.1")
			}
			return address
		}
	})
}

func rate(endpoint, grant, per string) issuer.EndpointRate {
	return issuer.EndpointRate{Rate: ratelimit.Rate{Quota: 3, Window: time.Hour}, Endpoint: endpoint, GrantType: grant, Per: per}
}

// RATE-11: TestTokenEndpointKeepsRatesByClientAndAddress: the answers say how the caller
// stands, others are not counted with it, and the quota comes back.
func TestTokenEndpointKeepsRatesByClientAndAddress(t *testing.T) {
	t.Parallel()
	for per, other := range map[string]struct {
		client, address string
	}{
		issuer.PerClient:  {issuertest.GPT, "127.0.0.1"},
		issuer.PerAddress: {issuertest.Confidential, "2001:db8:0:2::1"},
	} {
		scene := issuertest.New(t, rated(rate("token", "", per)))
		ask := func(client, address string) issuertest.Response {
			return scene.PostForm("/oauth/token", withClient(client, issuertest.Secret), issuertest.Header("Test-Address", address))
		}
		for left := 2; left >= 0; left-- {
			r := ask(issuertest.Confidential, "127.0.0.1")
			wantOAuthError(t, r, 400, "invalid_grant")
			if got, want := r.Header.Get("RateLimit"), `"token 3/h per `+per+`";r=`+string(rune('0'+left)); !strings.HasPrefix(got, want) {
				t.Errorf("RateLimit %s, want %s", got, want)
			}
		}
		r := ask(issuertest.Confidential, "127.0.0.1")
		wantOAuthError(t, r, http.StatusTooManyRequests, "temporarily_unavailable")
		if r.Header.Get("Retry-After") != "1200" || r.Header.Get("RateLimit-Policy") != `"token 3/h per `+per+`";q=3;w=3600` {
			t.Errorf("per %s: %v", per, r.Header)
		}
		wantOAuthError(t, ask(other.client, other.address), 400, "invalid_grant")
		scene.Clock.Advance(20 * time.Minute)
		wantOAuthError(t, ask(issuertest.Confidential, "127.0.0.1"), 400, "invalid_grant")
	}
}

// RATE-11: TestRefreshesAreCountedByUser: whichever session, and before anything is
// consumed: the refused token works later. Codes are not counted where the rate names
// refreshes.
func TestRefreshesAreCountedByUser(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, rated(rate("token", "refresh_token", issuer.PerUser)))
	first, second := scene.Tokens(t, issuertest.Public), scene.Tokens(t, issuertest.GPT)
	scene.Tokens(t, issuertest.Public) // a fourth code, as it were
	scene.Tokens(t, issuertest.Public)
	public := func(token string) issuertest.Response {
		return scene.PostForm("/oauth/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {issuertest.Public}, "refresh_token": {token}})
	}
	for range 3 {
		r := public(first.Refresh)
		if r.Status != http.StatusOK || !strings.Contains(r.Header.Get("RateLimit"), "token refresh_token 3/h per user") {
			t.Fatalf("%d %s %v", r.Status, r.Body, r.Header)
		}
		first = r.Tokens()
	}
	wantOAuthError(t, public(first.Refresh), http.StatusTooManyRequests, "temporarily_unavailable")
	wantOAuthError(t, scene.PostForm("/oauth/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {issuertest.GPT}, "client_secret": {issuertest.Secret}, "refresh_token": {second.Refresh}}),
		http.StatusTooManyRequests, "temporarily_unavailable")
	scene.Clock.Advance(20 * time.Minute)
	if r := public(first.Refresh); r.Status != http.StatusOK {
		t.Errorf("the token that was refused for a while: %d %s", r.Status, r.Body)
	}
}

// RATE-11: TestCodesAreCountedByUserBeforeTheyAreConsumed.
func TestCodesAreCountedByUserBeforeTheyAreConsumed(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, rated(rate("token", "", issuer.PerUser)))
	for range 3 {
		scene.Tokens(t, issuertest.Public)
	}
	code, verifier := scene.Code(t, issuertest.Public)
	query, _ := scene.Authorization(issuertest.Public)
	form := url.Values{"grant_type": {"authorization_code"}, "client_id": {issuertest.Public}, "code": {code}, "code_verifier": {verifier}, "redirect_uri": {query.Get("redirect_uri")}}
	wantOAuthError(t, scene.PostForm("/oauth/token", form), http.StatusTooManyRequests, "temporarily_unavailable")
	if n := scene.Count(t, "SELECT count(*) FROM gpt_authorization_codes WHERE used_at IS NULL"); n != 1 {
		t.Errorf("%d codes are left, want the one that was not redeemed", n)
	}
}

// RATE-11, F-01: TestPollingDeviceHearsSlowDown: what it does not know would end its wait.
// RFC 8628 section 3.5.
func TestPollingDeviceHearsSlowDown(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, rated(rate("token", "urn:ietf:params:oauth:grant-type:device_code", issuer.PerClient)))
	poll := func() issuertest.Response {
		return scene.PostForm("/oauth/token", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "client_id": {issuertest.Device}, "device_code": {"gpt_dc_none"}})
	}
	for range 3 {
		wantOAuthError(t, poll(), 400, "invalid_grant")
	}
	r := poll()
	wantOAuthError(t, r, 400, "slow_down")
	if r.Header.Get("Retry-After") == "" {
		t.Errorf("%v", r.Header)
	}
}

// RATE-11: TestOtherEndpointsKeepRates: pages answer with a page, and preflights are not
// counted.
func TestOtherEndpointsKeepRates(t *testing.T) {
	t.Parallel()
	var rates []issuer.EndpointRate
	for _, endpoint := range issuer.RatedEndpoints() {
		rates = append(rates, rate(endpoint, "", issuer.PerAddress))
	}
	scene := issuertest.New(t, rated(rates...), issuertest.With(func(c *issuer.Config) {
		c.Registration = &issuer.Registration{Dynamic: true}
		c.OpenID = true
	}))
	query, _ := scene.Authorization(issuertest.Public)
	for path, send := range map[string]func(path string) issuertest.Response{
		"/oauth/authorize":            func(path string) issuertest.Response { return scene.Get(path + "?" + query.Encode()) },
		"/oauth/login":                func(path string) issuertest.Response { return scene.PostForm(path, url.Values{}) },
		"/oauth/par":                  func(path string) issuertest.Response { return scene.PostForm(path, url.Values{}) },
		"/oauth/device_authorization": func(path string) issuertest.Response { return scene.PostForm(path, url.Values{}) },
		"/oauth/register":             func(path string) issuertest.Response { return scene.SendJSON("POST", path, map[string]any{}) },
		"/oauth/introspect":           func(path string) issuertest.Response { return scene.PostForm(path, url.Values{}) },
		"/oauth/revoke":               func(path string) issuertest.Response { return scene.PostForm(path, url.Values{}) },
		"/oauth/userinfo":             func(path string) issuertest.Response { return scene.Get(path) },
	} {
		for range 5 {
			r, err := http.NewRequest(http.MethodOptions, scene.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := scene.Do(r); got.Status == http.StatusTooManyRequests || got.Header.Get("RateLimit") != "" {
				t.Errorf("%s: a preflight is counted: %d", path, got.Status)
			}
		}
		for range 3 {
			if r := send(path); r.Status == http.StatusTooManyRequests || r.Header.Get("RateLimit") == "" {
				t.Errorf("%s: %d %v", path, r.Status, r.Header)
			}
		}
		r := send(path)
		page := strings.HasPrefix(r.Header.Get("Content-Type"), "text/html")
		if wantPage := path == "/oauth/authorize" || path == "/oauth/login"; r.Status != http.StatusTooManyRequests || r.Header.Get("Retry-After") != "1200" || page != wantPage {
			t.Errorf("%s: %d %v %s", path, r.Status, r.Header, r.Body)
		}
	}
}

// RATE-12: TestDeadGrantIsToldSoUntilItComesTooOften: a client that retries without end
// hears invalid_grant, which tells it to stop, and from some point on to come later. It
// concerns that grant and that client alone. PROTOCOL trap 16.
func TestDeadGrantIsToldSoUntilItComesTooOften(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	refresh := func(client, token string) issuertest.Response {
		return scene.PostForm("/oauth/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {client}, "refresh_token": {token}})
	}
	dead, live := scene.Tokens(t, issuertest.Public), scene.Tokens(t, issuertest.Public)
	if r := scene.PostForm("/oauth/revoke", url.Values{"client_id": {issuertest.Public}, "token": {dead.Refresh}}); r.Status != http.StatusOK {
		t.Fatal(r.Status, r.Body)
	}
	for range 120 {
		wantOAuthError(t, refresh(issuertest.Public, dead.Refresh), 400, "invalid_grant")
	}
	r := refresh(issuertest.Public, dead.Refresh)
	wantOAuthError(t, r, http.StatusTooManyRequests, "temporarily_unavailable")
	if r.Header.Get("Retry-After") != "1" {
		t.Errorf("%v", r.Header)
	}
	wantOAuthError(t, refresh(issuertest.Device, dead.Refresh), 400, "invalid_grant")
	for range 130 { // one that lives may come as often as it likes
		r := refresh(issuertest.Public, live.Refresh)
		if r.Status != http.StatusOK {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
		live = r.Tokens()
	}
	scene.Clock.Advance(time.Minute)
	wantOAuthError(t, refresh(issuertest.Public, dead.Refresh), 400, "invalid_grant")
}

// TestEndpointRatesThatMakeNoSense are refused before the server is made.
func TestEndpointRatesThatMakeNoSense(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]issuer.EndpointRate{
		"unknown endpoint": rate("jwks", "", issuer.PerAddress),
		"nobody known":     rate("authorize", "", issuer.PerClient),
		"grant elsewhere":  rate("par", "refresh_token", issuer.PerClient),
		"unknown grant":    rate("token", "password", issuer.PerClient),
		"user of a client": rate("token", "client_credentials", issuer.PerUser),
		"no rate":          {Endpoint: "token", Per: issuer.PerClient},
	} {
		if err := bad.Check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
