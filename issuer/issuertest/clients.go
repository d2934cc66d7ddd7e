package issuertest

import (
	"context"
	"sync"
	"testing"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/postgres"
)

// The clients of a scene, by client_id. Secret belongs to each confidential one.
const (
	Confidential = "copilot"  // Basic or post, PKCE required, one https redirect
	Public       = "cli"      // no secret, one loopback redirect
	GPT          = "jobs-gpt" // a Custom GPT: post, PKCE optional, two redirects
	Device       = "tv"       // no secret, no redirect: the device grant
	Machine      = "indexer"  // acts for itself: client_credentials, for jobs:read and applications:read

	Secret = "a-client-secret-of-forty-three-characters-x"
)

// Redirect URIs of the clients. ChatGPT answers on either of its two hosts.
const (
	ConfidentialRedirect = "https://copilot.example/callback"
	PublicRedirect       = "http://127.0.0.1/callback"
	GPTRedirect          = "https://chat.openai.com/aip/g-0123/oauth/callback"
	GPTOtherRedirect     = "https://chatgpt.com/aip/g-0123/oauth/callback"
)

// Clients are the registered clients: configuration in memory, the switch that
// disables one in the database.
type Clients struct {
	scene *Scene

	mu   sync.Mutex
	byID map[string]issuer.Client
}

func newClients(s *Scene) *Clients {
	grants := []string{"authorization_code", "refresh_token"}
	secret := []issuer.Digest{issuer.HashClientSecret(Secret)}
	c := &Clients{scene: s, byID: map[string]issuer.Client{}}
	c.Register(s.t, issuer.Client{ID: Confidential, Name: "Career Copilot", SecretDigests: secret, Grants: grants,
		AuthMethods: []string{"client_secret_basic", "client_secret_post"}, RedirectURIs: []string{ConfidentialRedirect}})
	c.Register(s.t, issuer.Client{ID: Public, Name: "Job CLI", AuthMethods: []string{"none"}, Grants: grants, RedirectURIs: []string{PublicRedirect}})
	c.Register(s.t, issuer.Client{ID: GPT, Name: "Jobs GPT", SecretDigests: secret, Grants: grants, PKCEOptional: true,
		AuthMethods: []string{"client_secret_post"}, RedirectURIs: []string{GPTRedirect, GPTOtherRedirect},
		Resource: s.URL, Scopes: oauth.NewScopeSet("jobs:read", "applications:read", "applications:write")})
	c.Register(s.t, issuer.Client{ID: Device, Name: "Job TV", AuthMethods: []string{"none"},
		Grants: []string{"urn:ietf:params:oauth:grant-type:device_code", "refresh_token"}})
	c.Register(s.t, issuer.Client{ID: Machine, Name: "Job indexer", SecretDigests: secret, Grants: []string{"client_credentials"},
		AuthMethods: []string{"client_secret_basic", "client_secret_post"}, Scopes: oauth.NewScopeSet("jobs:read", "applications:read", "mcp:tools")})
	return c
}

// Client finds a client that is registered and not disabled.
func (c *Clients) Client(ctx context.Context, clientID string) (*issuer.Client, error) {
	c.mu.Lock()
	client, ok := c.byID[clientID]
	c.mu.Unlock()
	if !ok {
		return nil, issuer.ErrNotFound
	}
	enabled, err := c.scene.Store.ClientEnabled(ctx, clientID)
	if err != nil {
		return nil, err
	}
	if !enabled {
		return nil, issuer.ErrNotFound
	}
	return &client, nil
}

// Register adds a client, or replaces the one of the same id.
func (c *Clients) Register(t testing.TB, client issuer.Client) {
	t.Helper()
	if err := c.scene.Store.EnsureClients(context.Background(), []postgres.ClientRow{{ID: client.ID, Name: client.Name}}); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byID[client.ID] = client
}

// Change alters a registered client.
func (c *Clients) Change(t testing.TB, clientID string, change func(*issuer.Client)) {
	t.Helper()
	c.mu.Lock()
	client, ok := c.byID[clientID]
	c.mu.Unlock()
	if !ok {
		t.Fatalf("no client %q", clientID)
	}
	change(&client)
	c.Register(t, client)
}

// Remove takes a client out of the configuration; its row stays.
func (c *Clients) Remove(clientID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byID, clientID)
}

// redirectOf is where the client of this id is answered when the test names no
// other.
func (c *Clients) redirectOf(clientID string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if client := c.byID[clientID]; len(client.RedirectURIs) > 0 {
		return client.RedirectURIs[0]
	}
	return ""
}

func (c *Clients) confidential(clientID string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	client := c.byID[clientID]
	return client.Confidential()
}
