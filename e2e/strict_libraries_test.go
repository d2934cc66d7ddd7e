package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

// strictClients are the clients of the drivers, one for each way in which a client
// says who it is.
func strictClients(t *testing.T) (options, keyFile string) {
	t.Helper()
	key, public := newJWK(t)
	keyFile = filepath.Join(t.TempDir(), "key.json")
	writeFile(t, keyFile, key)
	return fmt.Sprintf(`client strict-basic {
			secret       {env.DEMO_CLIENT_SECRET}
			auth_method  client_secret_basic
			redirect_uri http://127.0.0.1/callback
			grants       authorization_code refresh_token client_credentials
		}
		client strict-post {
			secret       {env.DEMO_CLIENT_SECRET}
			auth_method  client_secret_post
			redirect_uri http://127.0.0.1/callback
		}
		client strict-key {
			jwks `+"`{\"keys\":[%s]}`"+`
			redirect_uri http://127.0.0.1/callback
			grants       authorization_code refresh_token client_credentials
			require_pushed_authorization_requests
			dpop_bound_access_tokens
		}
		client strict-signed {
			jwks `+"`{\"keys\":[%[1]s]}`"+`
			grants       client_credentials
		}
		client strict-device {
			grants device_code refresh_token
		}
		client strict-openid {
			secret                   {env.DEMO_CLIENT_SECRET}
			auth_method              client_secret_basic
			redirect_uri             http://127.0.0.1/callback
			post_logout_redirect_uri http://127.0.0.1/callback
		}
		openid
		registration {
			dynamic
		}`, public), keyFile
}

// newJWK makes a key pair and returns both halves.
func newJWK(t *testing.T) (private, public string) {
	t.Helper()
	raw, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := jwk.FromRaw(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := jwk.AssignKeyID(key); err != nil {
		t.Fatal(err)
	}
	half, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return mustJSON(t, key), mustJSON(t, half)
}

// CLI-01, CLI-02: the strict libraries connect with all their checks on, over https, in
// Chromium.
func TestStrictLibrariesConnect(t *testing.T) {
	t.Parallel()
	options, key := strictClients(t)
	s := newSceneWith(t, sceneConfig{HTTPS: true, Options: options})
	browser := newChromium(t)
	for _, library := range []string{"oauth4webapi", "openid-client"} {
		start := func(t *testing.T, flow, client, auth string, more ...string) *driver {
			args := []string{flow, "--issuer", s.Base, "--resource", s.Base, "--api", s.Base + "/jobs", "--scope", "jobs:read", "--client-id", client}
			if auth != "" {
				args = append(args, "--auth", auth, "--client-secret", clientSecret, "--key", key)
			}
			return s.in(t).startDriver(library+".mjs", append(args, more...)...)
		}
		t.Run(library, func(t *testing.T) {
			// It polls every five seconds: it begins first and ends last.
			device := start(t, "device", "strict-device", "")
			l := &libraryRun{library: library, browser: browser, issuer: s.Base}
			device.await("discovery")
			if library == "oauth4webapi" {
				device.await("resource discovery")
			}
			waiting := device.await("browse")
			pages := allow(t, browser, waiting.text("url"))
			if !strings.Contains(strings.Join(pages, "\n"), waiting.text("user_code")) {
				t.Errorf("the pages do not show the code %s:\n%s", waiting.text("user_code"), strings.Join(pages, "\n"))
			}
			t.Run("authorization code, client_secret_basic", func(t *testing.T) {
				l.wholeLife(t, start(t, "code", "strict-basic", "client_secret_basic"), "strict-basic", "Bearer", true)
			})
			t.Run("authorization code, public", func(t *testing.T) {
				l.wholeLife(t, start(t, "code", "demo-public", ""), "demo-public", "Bearer", false)
			})
			t.Run("pushed request, client_secret_post", func(t *testing.T) {
				l.wholeLife(t, start(t, "par", "strict-post", "client_secret_post"), "strict-post", "Bearer", true)
			})
			t.Run("pushed request, proof of possession, private_key_jwt", func(t *testing.T) {
				l.wholeLife(t, start(t, "dpop", "strict-key", "private_key_jwt"), "strict-key", "DPoP", true)
			})
			t.Run("client credentials, client_secret_basic", func(t *testing.T) {
				l.credentials(t, start(t, "credentials", "strict-basic", "client_secret_basic"), "strict-basic")
			})
			t.Run("client credentials, private_key_jwt", func(t *testing.T) {
				l.credentials(t, start(t, "credentials", "strict-signed", "private_key_jwt"), "strict-signed")
			})
			t.Run("dynamic registration", func(t *testing.T) {
				d := start(t, "register", "", "")
				if library == "oauth4webapi" {
					l.discovery(t, d)
					d.await("registered").want(t, map[string]any{"auth": "client_secret_basic", "grants": []string{"authorization_code", "refresh_token"}, "secret": true})
					l.life(t, d, "", "Bearer", true)
					return
				}
				d.await("registered").want(t, map[string]any{"auth": "none", "secret": false})
				l.life(t, d, "", "Bearer", false)
			})
			for {
				r := <-device.reports
				if r["step"] == "pending" {
					r.want(t, map[string]any{"error": "authorization_pending"})
					continue
				}
				if r["step"] != "token" {
					t.Fatalf("device: %v\n%s", r, device.log)
				}
				r.want(t, map[string]any{"token_type": "bearer", "scope": "jobs:read"})
				break
			}
			device.await("call").want(t, map[string]any{"status": 200, "client_id": "strict-device"})
			device.wait()
			// Last: the person signs out, and a device that waits would get nothing.
			t.Run("OpenID Connect", func(t *testing.T) {
				l.openID(t, start(t, "openid", "strict-openid", "client_secret_basic", "--scope", "openid email jobs:read"))
			})
		})
	}
}

// libraryRun reads what the driver of a strict library reports.
type libraryRun struct {
	library, issuer string
	browser         context.Context
}

func (l *libraryRun) discovery(t *testing.T, d *driver) {
	t.Helper()
	d.await("discovery").want(t, map[string]any{"issuer": l.issuer})
	if l.library == "oauth4webapi" {
		d.await("resource discovery").want(t, map[string]any{"resource": l.issuer, "servers": []string{l.issuer}})
	}
}

func (l *libraryRun) wholeLife(t *testing.T, d *driver, client, tokenType string, confidential bool) {
	t.Helper()
	l.discovery(t, d)
	l.life(t, d, client, tokenType, confidential)
}

// life is a session from the authorization to its end. oauth4webapi shows in
// addition where it was asked for a nonce.
func (l *libraryRun) life(t *testing.T, d *driver, client, tokenType string, confidential bool) {
	t.Helper()
	bound, nonces := tokenType == "DPoP", 0
	next := func(step string) report {
		t.Helper()
		for {
			r := <-d.reports
			if r["step"] == "nonce" && bound {
				nonces++
				continue
			}
			if r["step"] != step {
				t.Fatalf("%v, want %q\n%s", r, step, d.log)
			}
			return r
		}
	}
	if strings.Contains(t.Name(), "pushed") {
		if uri := next("pushed").text("request_uri"); !strings.HasPrefix(uri, "urn:ietf:params:oauth:request_uri:") {
			t.Errorf("request_uri %q", uri)
		}
	}
	allow(t, l.browser, next("browse").text("url"))
	iss := next("iss")
	if iss.text("other") == "" || iss.text("without") == "" {
		t.Errorf("the library takes an answer of another issuer: %v", iss)
	}
	next("token").want(t, map[string]any{"token_type": strings.ToLower(tokenType), "scope": "jobs:read", "refreshable": true})
	called := next("call")
	called.want(t, map[string]any{"status": 200, "aud": l.issuer, "scope": "jobs:read", "bound": bound})
	if client == "" {
		client = called.text("client_id")
	}
	called.want(t, map[string]any{"client_id": client})
	next("refresh").want(t, map[string]any{"scope": "jobs:read"})
	next("call").want(t, map[string]any{"status": 200, "sub": called["sub"], "bound": bound})
	if confidential {
		next("introspection").want(t, map[string]any{"active": true, "client_id": client, "scope": "jobs:read"})
	}
	next("revocation")
	if confidential {
		next("introspection").want(t, map[string]any{"active": false, "client_id": nil})
	}
	refused := next("refused")
	refused.want(t, map[string]any{"status": 401})
	if challenges := mustJSON(t, refused["challenges"]); !strings.Contains(challenges, `"error":"invalid_token"`) {
		t.Errorf("challenges: %s", challenges)
	}
	next("refresh refused").want(t, map[string]any{"error": "invalid_grant"})
	if bound && l.library == "oauth4webapi" && nonces == 0 {
		t.Error("no proof had to bring a nonce")
	}
	d.wait()
}

// openID is who the user is, from signing in to signing out.
func (l *libraryRun) openID(t *testing.T, d *driver) {
	t.Helper()
	l.discovery(t, d)
	pages := allow(t, l.browser, d.await("browse").text("url"))
	if text := strings.Join(pages, "\n"); !strings.Contains(text, "See your email address") {
		t.Errorf("the pages:\n%s", text)
	}
	if l.library == "oauth4webapi" && d.await("nonce of another").text("refused") == "" {
		t.Error("the library takes an ID token of another request")
	}
	id := d.await("id token")
	id.want(t, map[string]any{"email": email, "aud": "strict-openid", "amr": []string{"pwd"}})
	for _, step := range []string{"userinfo", "refresh"} {
		d.await(step).want(t, map[string]any{"sub": id["sub"]})
	}
	allow(t, l.browser, d.await("browse").text("url"))
	d.await("signed out").want(t, map[string]any{"state": true})
	d.await("refused").want(t, map[string]any{"status": 401})
	d.wait()
}

func (l *libraryRun) credentials(t *testing.T, d *driver, client string) {
	t.Helper()
	l.discovery(t, d)
	d.await("token").want(t, map[string]any{"token_type": "bearer", "scope": "jobs:read", "sub": client, "refreshable": false})
	d.await("call").want(t, map[string]any{"status": 200, "sub": client, "client_id": client})
	d.wait()
}
