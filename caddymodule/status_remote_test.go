package caddymodule

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// UPS-19: TestStatusAndReportTellOfACaddyThatOnlyGates: no database, clients or keys of
// its own are missed there, but those of the authorization server are. Doctor and the
// admin API say where to ask instead.
func TestStatusAndReportTellOfACaddyThatOnlyGates(t *testing.T) {
	s := prepareGateScene(t)
	var away atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		coordinate := func(at int) string {
			point, err := s.key.PublicKey.Bytes()
			if err != nil {
				t.Error(err)
				return ""
			}
			return base64.RawURLEncoding.EncodeToString(point[1+32*at : 33+32*at])
		}
		issuer := "http://" + r.Host
		switch {
		case away.Load():
			w.WriteHeader(http.StatusBadGateway)
		case r.URL.Path == "/jwks":
			_ = json.NewEncoder(w).Encode(map[string]any{"keys": []map[string]string{{"kty": "EC", "crv": "P-256", "kid": "k", "alg": "ES256", "use": "sig", "x": coordinate(0), "y": coordinate(1)}}})
		default:
			_ = json.NewEncoder(w).Encode(map[string]string{"issuer": issuer, "jwks_uri": issuer + "/jwks", "introspection_endpoint": issuer + "/introspect"})
		}
	}))
	defer elsewhere.Close()
	load := func(issuer string) {
		t.Helper()
		config := "{\nadmin off\nauto_https off\noauth {\nremote " + issuer + " {\nclient gate a-secret-of-the-second-gate-that-is-long\n}\nmax_staleness 3s\nscope jobs:read Jobs\n}\n}\n" +
			"http://" + s.address + " {\noauth_server metadata\noauth_protect {\nresource http://" + s.address + "\nmode observe\nGET /jobs jobs:read\n}\nrespond fine\n}\n"
		adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), map[string]any{"filename": "Caddyfile"})
		if err != nil {
			t.Fatal(err)
		}
		if err := caddy.Load(adapted, true); err != nil {
			t.Fatal(err)
		}
		s.awaitAlone()
	}
	admin := adminServer(t)

	load(elsewhere.URL)
	out, err := runCommand(t, "status", "--address", admin)
	if err != nil {
		t.Fatalf("healthy: %v\n%s", err, out)
	}
	for _, want := range []string{admin + "  healthy", "issuer    " + elsewhere.URL + ", elsewhere: this Caddy only gates", "sessions  asked about at the authorization server (introspection); what it says counts for 3s"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	for _, not := range []string{"view", "clocks", "clients", "key", "database"} {
		if strings.Contains(out, "\n"+not+" ") {
			t.Errorf("a line %s is in\n%s", not, out)
		}
	}
	resp, err := http.Get("http://" + s.address + "/jobs")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if out, err := runCommand(t, "report", "--address", admin); err == nil || !strings.Contains(out, "GET /jobs") {
		t.Errorf("report: %v\n%s", err, out)
	}

	away.Store(true)
	load(strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1)) // whose keys nobody has
	if out, err := runCommand(t, "status", "--address", admin); err == nil || !strings.Contains(out, "problem   the keys of the authorization server cannot be had") || strings.Contains(out, "no key signs") {
		t.Errorf("away: %v\n%s", err, out)
	}
	// What is told elsewhere.
	w := httptest.NewRecorder()
	if err := serveAdministration(w, httptest.NewRequest(http.MethodGet, "/oauth/clients", nil)); err == nil || !strings.Contains(err.Error(), "this Caddy only gates") {
		t.Errorf("the admin API: %v", err)
	}
	if out, err := oauthCommand(t, remoteConfig(t), "", "doctor"); err == nil || !strings.Contains(err.Error(), "run doctor where https://auth.example.com runs") || strings.Contains(out, "PRODUCT") {
		t.Errorf("doctor: %v\n%s", err, out)
	}
}
