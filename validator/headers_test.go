package validator_test

import (
	"net/http"
	"reflect"
	"testing"

	"github.com/caddy-scope/caddy-scope/validator"
)

func policy(t testing.TB) *validator.HeaderPolicy {
	t.Helper()
	p, err := validator.NewHeaderPolicy(validator.IdentityHeaders{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// H-01, H-02, H-04, H-07, N-01, M1.
func TestStripRemovesEverySpellingOfIdentity(t *testing.T) {
	t.Parallel()
	r := request("GET", "/jobs")
	for _, name := range []string{
		"X-User-Id", "x-user-id", "X-USER-ID", "X_User_Id", "X-User_Id", "X.User.Id", "X-Client-Id", "X-Session-Id", "X-Scopes", "x_scopes",
		"X-HTTP-Method-Override", "X-Http-Method-Override", "X-Method-Override", "X-Original-URL", "X-Original-Url", "X-Rewrite-Url", "X_Rewrite_URL",
	} {
		r.Header[name] = []string{"admin", "root"}
	}
	r.Header["X-Request-Id"] = []string{"keep"}
	r.Header["X-Scoped"] = []string{"keep"}
	r.Header["Trailer"] = []string{"X-User-Id, Checksum", "x_scopes"}
	r.Trailer = http.Header{"X-User-Id": nil, "Checksum": nil}
	r.Header["Connection"] = []string{"close, X-User-Id, Authorization", "Upgrade, x-forwarded-for"}
	policy(t).Strip(r)
	want := http.Header{
		"X-Request-Id": {"keep"}, "X-Scoped": {"keep"}, "Trailer": {"Checksum"}, "Connection": {"close, Upgrade"},
	}
	if !reflect.DeepEqual(r.Header, want) {
		t.Errorf("header: %v", r.Header)
	}
	if _, ok := r.Trailer["X-User-Id"]; ok || len(r.Trailer) != 1 {
		t.Errorf("trailer: %v", r.Trailer)
	}
}

func TestStripLeavesAnOrdinaryRequestAlone(t *testing.T) {
	r := request("GET", "/jobs")
	r.Header = http.Header{"Accept": {"*/*"}, "Authorization": {"Bearer x"}, "User-Agent": {"x"}, "X-Forwarded-For": {"1.2.3.4"}}
	p := policy(t)
	if n := testing.AllocsPerRun(100, func() { p.Strip(r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if len(r.Header) != 4 {
		t.Errorf("header: %v", r.Header)
	}
}

func TestRenamedIdentityHeadersAreStrippedToo(t *testing.T) {
	t.Parallel()
	p, err := validator.NewHeaderPolicy(validator.IdentityHeaders{User: "X-Clerk-User-Id"})
	if err != nil {
		t.Fatal(err)
	}
	r := request("GET", "/jobs")
	r.Header["X_clerk_user_id"] = []string{"admin"}
	p.Strip(r)
	if len(r.Header) != 0 {
		t.Errorf("header: %v", r.Header)
	}
	p.SetIdentity(r.Header, &validator.Identity{UserID: "u", ClientID: "c", SessionID: "s", Scopes: "a b"})
	want := http.Header{"X-Clerk-User-Id": {"u"}, "X-Client-Id": {"c"}, "X-Session-Id": {"s"}, "X-Scopes": {"a b"}}
	if !reflect.DeepEqual(r.Header, want) {
		t.Errorf("header: %v", r.Header)
	}
}

func TestIdentityHeaderNamesAreChecked(t *testing.T) {
	t.Parallel()
	for _, names := range []validator.IdentityHeaders{
		{User: "X User"}, {User: "X_Client_Id"}, {User: "X-Scopes"}, {Token: "x.user.id"},
	} {
		if _, err := validator.NewHeaderPolicy(names); err == nil {
			t.Errorf("%+v is accepted", names)
		}
	}
}

// H-05: TestHeadersThatMeanSomethingElseCarryNoIdentity: neither an identity nor the
// token that proves it, in whatever spelling; the request would end elsewhere, or be
// read as another.
func TestHeadersThatMeanSomethingElseCarryNoIdentity(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"Authorization", "cookie", "Proxy-Authorization", "DPoP", "Host", "Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Te", "TRAILER", "Upgrade",
		"Content-Length", "content_length", "Content.Length", "Content-Type", "Expect", "Range", "X-Forwarded-For", "Forwarded",
		"X-HTTP-Method-Override", "X-Original-URL", "Sec-WebSocket-Key",
	} {
		for what, names := range map[string]validator.IdentityHeaders{
			"user": {User: name}, "client": {Client: name}, "session": {Session: name}, "scopes": {Scopes: name}, "token": {Token: name},
			"claim": {Claims: []validator.ClaimHeader{{Claim: "org", Header: name}}},
		} {
			if _, err := validator.NewHeaderPolicy(names); err == nil {
				t.Errorf("%s in %s is accepted", what, name)
			}
		}
	}
}

// H-05, H-09: one value, which cannot split or expand.
func TestIdentityValuesCannotSplit(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"user_1": "user_1", "auth0|5f": "auth0|5f", "a@b.example": "a@b.example", "{env.HOME}": "{env.HOME}",
		"a\r\nX-Admin: 1": "a%0D%0AX-Admin: 1", "a\x00": "a%00", "a,b": "a%2Cb", "50%": "50%25", " a ": "%20a%20", "ü": "%C3%BC",
	} {
		h := http.Header{}
		policy(t).SetIdentity(h, &validator.Identity{UserID: value})
		if got := h["X-User-Id"]; len(got) != 1 || got[0] != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

// H-06: our credentials stay here, other cookies go through byte for byte.
func TestCredentialsStayAtTheGate(t *testing.T) {
	t.Parallel()
	for cookie, want := range map[string]string{
		"a=1; oauth_login=x; b=\"2 3\"":    "a=1; b=\"2 3\"",
		"__Host-oauth_login=x":             "",
		"oauth_logins=1; my_oauth_login=2": "oauth_logins=1; my_oauth_login=2",
		"a=1;b=2":                          "a=1;b=2",
	} {
		h := http.Header{"Authorization": {"Bearer x"}, "Cookie": {cookie}}
		validator.StripCredentials(h)
		if h.Get("Cookie") != want || h.Get("Authorization") != "" || (want == "") != (h["Cookie"] == nil) {
			t.Errorf("%q: %v", cookie, h)
		}
	}
}
