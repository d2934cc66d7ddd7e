package issuer_test

import (
	"net/url"
	"testing"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// grantScene brings a scene to where the client may ask by the grant.
type grantScene struct {
	client string
	ready  func(*testing.T, *issuertest.Scene) (ask func() issuertest.Response)
	own    func(*testing.T) (*issuertest.Scene, func() issuertest.Response) // of a grant that needs more than a scene; nil: ready
}

func (g grantScene) start(t *testing.T) (scene *issuertest.Scene, ask func() issuertest.Response) {
	t.Helper()
	if g.own != nil {
		return g.own(t)
	}
	scene = issuertest.New(t)
	return scene, g.ready(t, scene)
}

// grantScenes has one for every grant type that the server knows.
func grantScenes(t *testing.T) map[string]grantScene {
	t.Helper()
	grants := map[string]grantScene{
		"authorization_code": {client: issuertest.Public, ready: func(t *testing.T, scene *issuertest.Scene) func() issuertest.Response {
			code, verifier := scene.Code(t, issuertest.Public)
			return func() issuertest.Response {
				return scene.PostForm("/oauth/token", codeForm(issuertest.Public, issuertest.PublicRedirect, code, verifier))
			}
		}},
		"refresh_token": {client: issuertest.Public, ready: func(t *testing.T, scene *issuertest.Scene) func() issuertest.Response {
			token := scene.Tokens(t, issuertest.Public).Refresh
			return func() issuertest.Response { return refresh(scene, issuertest.Public, token) }
		}},
		"client_credentials": {client: issuertest.Machine, ready: func(_ *testing.T, scene *issuertest.Scene) func() issuertest.Response {
			return func() issuertest.Response { return clientCredentials(scene, issuertest.Machine) }
		}},
		deviceGrant: {client: issuertest.Device, ready: func(t *testing.T, scene *issuertest.Scene) func() issuertest.Response {
			d := startDevice(t, scene)
			d.enter(d.userCode).Allow().WantPage(200, "Your device is connected")
			return func() issuertest.Response { return d.later() }
		}},
		exchangeGrant: {client: serviceID, ready: func(t *testing.T, scene *issuertest.Scene) func() issuertest.Response {
			e := newExchange(t, scene)
			return func() issuertest.Response { return e.ask(e.token) }
		}},
		bearerGrant: {client: agentID, own: func(t *testing.T) (*issuertest.Scene, func() issuertest.Response) {
			o := newOrganization(t)
			return o.Scene, func() issuertest.Response { return o.bring(o.assertion()) }
		}},
	}
	for _, known := range issuer.GrantTypes() {
		if _, ok := grants[known]; !ok {
			t.Errorf("the grant %s is not tried here", known)
		}
	}
	return grants
}

// T-09: whatever the grant, a client that is disabled, that lost the grant, or
// that may not have the scope any more gets no token with it.
func TestEveryGrantAsksTheSameOfTheClient(t *testing.T) {
	t.Parallel()
	for grant, c := range grantScenes(t) {
		for name, after := range map[string]struct {
			change func(*testing.T, *issuertest.Scene)
			status int
			code   string
		}{
			"disabled": {func(t *testing.T, scene *issuertest.Scene) {
				scene.SQL(t, "UPDATE gpt_clients SET disabled_at = now()")
			}, 401, "invalid_client"},
			"removed": {func(_ *testing.T, scene *issuertest.Scene) { scene.Clients.Remove(c.client) }, 401, "invalid_client"},
			"without the grant": {func(t *testing.T, scene *issuertest.Scene) {
				scene.Clients.Change(t, c.client, func(client *issuer.Client) { client.Grants = []string{"other"} })
			}, 400, "unauthorized_client"},
		} {
			t.Run(grant+" "+name, func(t *testing.T) {
				t.Parallel()
				scene, ask := c.start(t)
				after.change(t, scene)
				wantOAuthError(t, ask(), after.status, after.code)
			})
		}
		t.Run(grant+" as it should be", func(t *testing.T) {
			t.Parallel()
			_, ask := c.start(t)
			if r := ask(); r.Status != 200 {
				t.Errorf("%d %s", r.Status, r.Body)
			}
		})
	}
	scene := issuertest.New(t)
	for _, grant := range []string{"password", "implicit", bearerGrant, "Authorization_Code"} {
		form := url.Values{"grant_type": {grant}, "client_id": {issuertest.Public}, "username": {issuertest.Email}, "password": {issuertest.Password}}
		wantOAuthError(t, scene.PostForm("/oauth/token", form), 400, "unsupported_grant_type")
	}
}
