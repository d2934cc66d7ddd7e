package e2e

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// CLI-06: golang.org/x/oauth2 connects a device, whose user enters the code in Chromium,
// and acts for itself; both tokens open what they are for and nothing more.
func TestGoOAuth2ConnectsDevicesAndServices(t *testing.T) {
	t.Parallel()
	s := newSceneWith(t, sceneConfig{HTTPS: true, Options: `client tv {
			name   "Living room"
			grants device_code refresh_token
		}
		client robot {
			secret {env.DEMO_CLIENT_SECRET}
			grants client_credentials
		}`})
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, s.HTTP)

	device := oauth2.Config{ClientID: "tv", Scopes: []string{"jobs:read"},
		Endpoint: oauth2.Endpoint{DeviceAuthURL: s.Base + "/oauth/device_authorization", TokenURL: s.Base + "/oauth/token"}}
	waiting, err := device.DeviceAuth(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// The link without the code: the person types it.
	pages := strings.Join(enterCode(t, newChromium(t), waiting.VerificationURI, waiting.UserCode), "\n")
	for _, want := range []string{"Connect a device", "Living room", waiting.UserCode, "Search jobs and view job details", "Your device is connected"} {
		if !strings.Contains(pages, want) {
			t.Errorf("the pages do not say %q:\n%s", want, pages)
		}
	}
	token, err := device.DeviceAccessToken(ctx, waiting)
	if err != nil {
		t.Fatal(err)
	}
	s.opensJobsOnly(token)
	if got := s.Upstream.Last(t).Header; got.Get("X-User-Id") == "" || got.Get("X-Client-Id") != "tv" {
		t.Errorf("the upstream saw %v", got)
	}
	token.Expiry = token.Expiry.AddDate(-1, 0, 0)
	if fresh, err := device.TokenSource(ctx, token).Token(); err != nil || fresh.AccessToken == token.AccessToken {
		t.Errorf("refresh: %v %v", fresh, err)
	}
	if _, err := device.DeviceAccessToken(ctx, waiting); err == nil || !strings.Contains(err.Error(), "invalid_grant") {
		t.Errorf("the same code again: %v", err)
	}

	for name, style := range map[string]oauth2.AuthStyle{"header": oauth2.AuthStyleInHeader, "form": oauth2.AuthStyleInParams, "found out": oauth2.AuthStyleAutoDetect} {
		service := clientcredentials.Config{ClientID: "robot", ClientSecret: clientSecret, TokenURL: s.Base + "/oauth/token", Scopes: []string{"jobs:read"},
			EndpointParams: url.Values{"resource": {s.Base}}, AuthStyle: style}
		token, err := service.Token(ctx)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s.opensJobsOnly(token)
		if got := s.Upstream.Last(t).Header; got.Get("X-User-Id") != "" || got.Get("X-Client-Id") != "robot" || token.RefreshToken != "" {
			t.Errorf("%s: the upstream saw %v", name, got)
		}
	}
}

// opensJobsOnly: the token of the scope jobs:read.
func (s *scene) opensJobsOnly(token *oauth2.Token) {
	s.t.Helper()
	if status, _ := s.api(http.MethodGet, "/jobs", token.AccessToken); status != http.StatusOK {
		s.t.Errorf("GET /jobs: %d", status)
	}
	if status, _ := s.api(http.MethodPost, "/applications", token.AccessToken); status != http.StatusForbidden {
		s.t.Errorf("POST /applications: %d", status)
	}
}
