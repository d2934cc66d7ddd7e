package issuer_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// codeForm is a good redemption of the code by the client.
func codeForm(clientID, redirect, code, verifier string, params ...issuertest.Param) url.Values {
	form := url.Values{
		"grant_type": {"authorization_code"}, "client_id": {clientID}, "code": {code}, "redirect_uri": {redirect}, "code_verifier": {verifier},
	}
	if clientID != issuertest.Public {
		form.Set("client_secret", issuertest.Secret)
	}
	for _, param := range params {
		param(form)
	}
	return form
}

func wantOAuthError(t *testing.T, r issuertest.Response, status int, code string) {
	t.Helper()
	if r.Status != status || r.Error() != code {
		t.Errorf("got %d %s, want %d %s", r.Status, r.Body, status, code)
	}
	if r.Header.Get("Cache-Control") != "no-store" || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		t.Errorf("header %v", r.Header)
	}
	if strings.Contains(r.Body, "access_token") || strings.Contains(r.Body, "gpt_rt_") {
		t.Errorf("a refusal with a token: %s", r.Body)
	}
}

// T-05, T-06, T-27, T-28, T-29, PROTOCOL 8.2, PKCE downgrade: a redemption that is wrong says so and
// leaves the code to its owner.
func TestRefusedRedemptionDoesNotConsumeTheCode(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	for name, c := range map[string]struct {
		change issuertest.Param
		code   string
	}{
		"wrong verifier":     {issuertest.Set("code_verifier", issuertest.NewVerifier()), "invalid_grant"},
		"no verifier":        {issuertest.Omit("code_verifier"), "invalid_grant"},
		"short verifier":     {issuertest.Set("code_verifier", "short"), "invalid_grant"},
		"long verifier":      {issuertest.Set("code_verifier", strings.Repeat("a", 129)), "invalid_grant"},
		"odd verifier":       {issuertest.Set("code_verifier", strings.Repeat("ä", 43)), "invalid_grant"},
		"other redirect":     {issuertest.Set("redirect_uri", "http://127.0.0.1/other"), "invalid_grant"},
		"other port":         {issuertest.Set("redirect_uri", "http://127.0.0.1:1/callback"), "invalid_grant"},
		"other resource":     {issuertest.Set("resource", scene.MCP()), "invalid_target"},
		"relative resource":  {issuertest.Set("resource", "/jobs"), "invalid_target"},
		"script resource":    {issuertest.Set("resource", "javascript:alert(1)"), "invalid_target"},
		"fragment":           {issuertest.Set("resource", scene.URL+"#x"), "invalid_target"},
		"one of two wrong":   {func(v url.Values) { v["resource"] = []string{scene.URL, "https://evil.example"} }, "invalid_target"},
		"code twice":         {issuertest.Add("code", "gpt_ac_x"), "invalid_request"},
		"verifier twice":     {issuertest.Add("code_verifier", "x"), "invalid_request"},
		"unknown grant":      {issuertest.Set("grant_type", "password"), "unsupported_grant_type"},
		"client credentials": {issuertest.Set("grant_type", "client_credentials"), "unauthorized_client"},
		"no grant type":      {issuertest.Omit("grant_type"), "invalid_request"},
		"no code":            {issuertest.Omit("code"), "invalid_request"},
		"other code":         {issuertest.Set("code", "gpt_ac_"+issuertest.NewVerifier()), "invalid_grant"},
		"garbage":            {issuertest.Set("code", "%00<script>"), "invalid_grant"},
		"huge code":          {issuertest.Set("code", "gpt_ac_"+strings.Repeat("a", 50_000)), "invalid_grant"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, verifier := scene.Code(t, issuertest.Public)
			wantOAuthError(t, scene.PostForm("/oauth/token", codeForm(issuertest.Public, issuertest.PublicRedirect, code, verifier, c.change)), 400, c.code)
			if r := scene.PostForm("/oauth/token", codeForm(issuertest.Public, issuertest.PublicRedirect, code, verifier)); r.Status != 200 {
				t.Errorf("the code is spent: %d %s", r.Status, r.Body)
			}
		})
	}
}

// T-05: a verifier that is too short to be one stays so, whatever challenge it
// meets.
func TestGuessableVerifierIsRefused(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	for _, verifier := range []string{"short", strings.Repeat("a", 42), strings.Repeat("a", 129), strings.Repeat("ä", 43)} {
		code, _ := scene.Code(t, issuertest.Public, issuertest.Set("code_challenge", issuertest.Challenge(verifier)))
		wantOAuthError(t, scene.PostForm("/oauth/token", codeForm(issuertest.Public, issuertest.PublicRedirect, code, verifier)), 400, "invalid_grant")
	}
}

// T-05: the fifth wrong attempt burns the code.
func TestFifthWrongVerifierBurnsTheCode(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	code, verifier := scene.Code(t, issuertest.Public)
	for range 5 {
		wantOAuthError(t, scene.PostForm("/oauth/token", codeForm(issuertest.Public, issuertest.PublicRedirect, code, issuertest.NewVerifier())), 400, "invalid_grant")
	}
	wantOAuthError(t, scene.PostForm("/oauth/token", codeForm(issuertest.Public, issuertest.PublicRedirect, code, verifier)), 400, "invalid_grant")
}

// A-09, PROTOCOL 8.5: a verifier for a code that was issued without a challenge.
func TestVerifierWithoutChallengeIsADowngrade(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	code, verifier := scene.Code(t, issuertest.GPT, issuertest.Omit("code_challenge"), issuertest.Omit("code_challenge_method"))
	wantOAuthError(t, scene.PostForm("/oauth/token", codeForm(issuertest.GPT, issuertest.GPTRedirect, code, verifier)), 400, "invalid_grant")
	wantOAuthError(t, scene.PostForm("/oauth/token", codeForm(issuertest.GPT, issuertest.GPTOtherRedirect, code, "", issuertest.Omit("code_verifier"))), 400, "invalid_grant")
	wantOAuthError(t, scene.PostForm("/oauth/token", codeForm(issuertest.GPT, issuertest.GPTRedirect, code, "", issuertest.Omit("code_verifier"), issuertest.Omit("redirect_uri"))), 400, "invalid_grant")
	if r := scene.PostForm("/oauth/token", codeForm(issuertest.GPT, issuertest.GPTRedirect, code, "", issuertest.Omit("code_verifier"))); r.Status != 200 {
		t.Errorf("%d %s", r.Status, r.Body)
	}
}

// T-03, T-04, PROTOCOL 1.6.3: a code in other hands harms nobody, before and
// after it was redeemed.
func TestCodeOfAnotherClientIsUnknown(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	code, verifier := scene.Code(t, issuertest.Public)
	stolen := codeForm(issuertest.Confidential, issuertest.PublicRedirect, code, verifier)
	unknown := scene.PostForm("/oauth/token", codeForm(issuertest.Confidential, issuertest.PublicRedirect, "gpt_ac_"+issuertest.NewVerifier(), verifier))
	if r := scene.PostForm("/oauth/token", stolen); r.Body != unknown.Body || r.Status != unknown.Status {
		t.Errorf("tells that the code exists: %s, unknown %s", r.Body, unknown.Body)
	}
	tokens := scene.Redeem(t, issuertest.Public, code, url.Values{"code_verifier": {verifier}})
	scene.SQL(t, "UPDATE gpt_authorization_codes SET used_at = used_at - interval '1 minute'")
	wantOAuthError(t, scene.PostForm("/oauth/token", stolen), 400, "invalid_grant")
	wantOAuthError(t, scene.PostForm("/oauth/token", codeForm(issuertest.Public, issuertest.PublicRedirect, code, issuertest.NewVerifier())), 400, "invalid_grant")
	if r := refresh(scene, issuertest.Public, tokens.Refresh); r.Status != 200 {
		t.Errorf("the owner's session ended: %s", r.Body)
	}
}

// PROTOCOL 8.6, PROTOCOL 1.6.3, T-31: one of a hundred redemptions succeeds and its session lives; a
// replay later than ten seconds revokes it.
func TestConcurrentRedemptionsOfOneCodeYieldOneSession(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	code, verifier := scene.Code(t, issuertest.Public)
	form := codeForm(issuertest.Public, issuertest.PublicRedirect, code, verifier)
	answers := atOnce(100, func() issuertest.Response { return scene.PostForm("/oauth/token", form) })
	var successor string
	for _, r := range answers {
		if r.Status == 200 {
			if successor != "" {
				t.Fatal("two redemptions succeeded")
			}
			successor = r.Tokens().Refresh
			continue
		}
		wantOAuthError(t, r, 400, "invalid_grant")
	}
	if n := scene.Count(t, "SELECT count(*) FROM gpt_sessions"); n != 1 || successor == "" {
		t.Fatalf("%d sessions", n)
	}
	if r := refresh(scene, issuertest.Public, successor); r.Status != 200 {
		t.Fatalf("the session is dead: %s", r.Body)
	}
	scene.SQL(t, "UPDATE gpt_authorization_codes SET used_at = used_at - interval '11 seconds'")
	wantOAuthError(t, scene.PostForm("/oauth/token", form), 400, "invalid_grant")
	if n := scene.Count(t, "SELECT count(*) FROM gpt_sessions WHERE revoked_at IS NULL"); n != 0 {
		t.Error("a replay left the session alive")
	}
}

// atOnce calls f n times at the same time.
func atOnce[T any](n int, f func() T) []T {
	results := make([]T, n)
	start := make(chan struct{})
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			<-start
			results[i] = f()
		})
	}
	close(start)
	all.Wait()
	return results
}

// T-07, T-08: whatever ended between consent and redemption, the code ended
// with it. The clock is the database's.
func TestCodeDiesWithWhatItRestsOn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*issuertest.Scene)
		status int
		code   string
	}{
		"just in time": {func(s *issuertest.Scene) {
			s.SQL(t, "UPDATE gpt_authorization_codes SET expires_at = expires_at - interval '290 seconds'")
		}, 200, ""},
		"expired": {func(s *issuertest.Scene) {
			s.SQL(t, "UPDATE gpt_authorization_codes SET expires_at = expires_at - interval '301 seconds'")
		}, 400, "invalid_grant"},
		"user disabled":   {func(s *issuertest.Scene) { s.SQL(t, "UPDATE gpt_users SET disabled_at = now()") }, 400, "invalid_grant"},
		"login ended":     {func(s *issuertest.Scene) { s.SQL(t, "DELETE FROM gpt_logins") }, 400, "invalid_grant"},
		"client disabled": {func(s *issuertest.Scene) { s.SQL(t, "UPDATE gpt_clients SET disabled_at = now()") }, 401, "invalid_client"},
		"client removed":  {func(s *issuertest.Scene) { s.Clients.Remove(issuertest.Public) }, 401, "invalid_client"},
		"grant removed": {func(s *issuertest.Scene) {
			s.Clients.Change(t, issuertest.Public, func(c *issuer.Client) { c.Grants = []string{"refresh_token"} })
		}, 400, "unauthorized_client"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scene := issuertest.New(t)
			code, verifier := scene.Code(t, issuertest.Public)
			c.change(scene)
			r := scene.PostForm("/oauth/token", codeForm(issuertest.Public, issuertest.PublicRedirect, code, verifier))
			if c.status == 200 {
				if r.Status != 200 {
					t.Errorf("%d %s", r.Status, r.Body)
				}
				return
			}
			wantOAuthError(t, r, c.status, c.code)
			if n := scene.Count(t, "SELECT count(*) FROM gpt_sessions"); n != 0 {
				t.Errorf("%d sessions", n)
			}
		})
	}
}

// PROTOCOL 1.6.3, PROTOCOL 1.6.7, PROTOCOL 1.6.8, PROTOCOL 8.22: nothing in the database can be presented, and what
// is answered must not be kept.
func TestTokenAnswerIsAsTheStandardWantsIt(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	code, verifier := scene.Code(t, issuertest.Public)
	r := scene.PostForm("/oauth/token", codeForm(issuertest.Public, issuertest.PublicRedirect, code, verifier))
	tokens := r.Tokens()
	if r.Status != http.StatusOK || r.JSON["token_type"] != "Bearer" || tokens.ExpiresIn != 900 || tokens.Scope != "jobs:read" || len(r.JSON) != 5 {
		t.Errorf("%d %v", r.Status, r.JSON)
	}
	if r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("Pragma") != "no-cache" || r.Header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("%v", r.Header)
	}
	for name, secret := range map[string]string{"code": code, "refresh token": tokens.Refresh} {
		// At least 128 bits that nobody can guess: RFC 6749 section 10.10.
		if random := secret[len("gpt_ac_"):]; len(random) < 43 {
			t.Errorf("the %s has %d characters", name, len(random))
		}
	}
	for _, table := range []string{"gpt_authorization_codes", "gpt_sessions", "gpt_oauth_events", "gpt_logins"} {
		for _, row := range scene.SQL(t, "SELECT t::text FROM "+table+" t") {
			for name, secret := range map[string]string{"code": code, "access token": tokens.Access, "refresh token": tokens.Refresh, "verifier": verifier} {
				if strings.Contains(fmt.Sprint(row), secret) {
					t.Errorf("%s holds the %s", table, name)
				}
			}
		}
	}
}
