package admin

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
)

// ClientSpec is what an operator says of a client, in the words of the
// configuration. Nothing in it is a placeholder.
type ClientSpec struct {
	Name                   string          `json:"name,omitempty"`
	RedirectURIs           []string        `json:"redirect_uris,omitempty"`
	PostLogoutRedirectURIs []string        `json:"post_logout_redirect_uris,omitempty"`
	AuthMethods            []string        `json:"auth_methods,omitempty"`
	Grants                 []string        `json:"grants,omitempty"`
	Scopes                 []string        `json:"scopes,omitempty"`
	Resource               string          `json:"resource,omitempty"`
	Introspect             []string        `json:"introspect,omitempty"`
	PKCE                   string          `json:"pkce,omitempty"`
	JWKS                   json.RawMessage `json:"jwks,omitempty"`
	RequirePushed          bool            `json:"require_pushed_authorization_requests,omitempty"`
	RequireDPoP            bool            `json:"dpop_bound_access_tokens,omitempty"`
}

// NewClient is a ClientSpec with what is not kept in it.
type NewClient struct {
	// ID is the client_id; empty: one is made. It begins with
	// issuer.OperatorClientPrefix.
	ID string `json:"client_id,omitempty"`
	// Public: it gets no secret.
	Public bool `json:"public,omitempty"`
	ClientSpec
}

// Kinds of clients.
const (
	KindConfigured = "configured"
	KindOperator   = "operator"
)

// Client is a client as an operator sees it.
type Client struct {
	ID     string `json:"client_id"`
	Kind   string `json:"kind"`
	Source string `json:"source,omitempty"` // of a configured one, such as "Caddyfile:20"
	ClientSpec
	Confidential  bool       `json:"confidential"`
	SecretSince   *time.Time `json:"secret_since,omitempty"`
	PreviousUntil *time.Time `json:"previous_secret_until,omitempty"` // the secret before still holds
	CreatedAt     *time.Time `json:"created_at,omitempty"`
	DisabledAt    *time.Time `json:"disabled_at,omitempty"`
	// Problem is why the server refuses a client that an operator has added: the
	// configuration has changed since.
	Problem string `json:"problem,omitempty"`
	// Secret is in the answer that made it, and in no other.
	Secret string `json:"client_secret,omitempty"`
}

// Clients lists the clients of the configuration, then those that operators have
// added, each by id. Those that registered themselves are Registrations.
func (a *Admin) Clients(ctx context.Context, paging Paging) (Page[Client], error) {
	return pageByName(ctx, paging, a.clientsAfter, func(c Client) (string, Client) { return c.ID, c })
}

func (a *Admin) clientsAfter(ctx context.Context, after string, n int) (clients []Client, err error) {
	if !strings.HasPrefix(after, issuer.OperatorClientPrefix) {
		for _, id := range slices.Sorted(maps.Keys(a.Configured)) {
			if id > after && len(clients) < n {
				clients = append(clients, a.configured(id))
			}
		}
		if err := a.markDisabled(ctx, clients); err != nil {
			return nil, err
		}
		after = ""
	}
	if room := n - len(clients); room > 0 {
		rows, err := a.Store.OperatorClients(ctx, after, room)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			clients = append(clients, a.operatorClient(row))
		}
	}
	return clients, nil
}

// Client returns one of them.
func (a *Admin) Client(ctx context.Context, id string) (Client, error) {
	if _, ok := a.Configured[id]; ok {
		client := []Client{a.configured(id)}
		err := a.markDisabled(ctx, client)
		return client[0], err
	}
	row, err := a.Store.FindOperatorClient(ctx, id)
	if err != nil {
		return Client{}, orMissing(err, "no client %q stands in the configuration or was added; to see who is there: client list, and registration list for those that registered themselves", id)
	}
	return a.operatorClient(row), nil
}

func (a *Admin) configured(id string) Client {
	c := a.Configured[id]
	client := shape(c.Client)
	client.Kind, client.Source = KindConfigured, c.Source
	return client
}

func (a *Admin) markDisabled(ctx context.Context, clients []Client) error {
	ids := make([]string, len(clients))
	for i := range clients {
		ids[i] = clients[i].ID
	}
	since, err := a.Store.DisabledClients(ctx, ids)
	for i := range clients {
		if at, ok := since[clients[i].ID]; ok {
			clients[i].DisabledAt = &at
		}
	}
	return err
}

// operatorClient shows a row: as the server understands it, or, where it does
// not, as it was added.
func (a *Admin) operatorClient(row postgres.OperatorClient) Client {
	var spec ClientSpec
	client := Client{ID: row.ID}
	err := json.Unmarshal(row.Settings, &spec)
	if err == nil {
		var understood *issuer.Client
		if understood, err = a.Check(row.ID, spec, digestsOf(row)); err == nil {
			client = shape(understood)
		}
	}
	if err != nil {
		client.ClientSpec, client.Confidential, client.Problem = spec, row.Secret != nil || spec.JWKS != nil, err.Error()
	}
	client.Kind, client.JWKS = KindOperator, spec.JWKS
	client.SecretSince, client.PreviousUntil, client.DisabledAt = row.SecretSince, row.PreviousUntil, row.DisabledAt
	client.CreatedAt = &row.CreatedAt
	return client
}

// digestsOf are the secrets that hold now.
func digestsOf(row postgres.OperatorClient) (digests []issuer.Digest) {
	for _, digest := range []*issuer.Digest{row.Secret, row.Previous} {
		if digest != nil {
			digests = append(digests, *digest)
		}
	}
	return digests
}

// shape is a client in the words of the configuration.
func shape(c *issuer.Client) Client {
	client := Client{ID: c.ID, Confidential: c.Confidential(), ClientSpec: ClientSpec{
		Name: c.Name, RedirectURIs: c.RedirectURIs, PostLogoutRedirectURIs: c.PostLogoutRedirectURIs, AuthMethods: c.AuthMethods,
		Scopes: c.Scopes, Resource: c.Resource, Introspect: c.Introspects, RequirePushed: c.RequirePushed, RequireDPoP: c.RequireDPoP,
	}}
	if c.PKCEOptional {
		client.PKCE = "optional"
	}
	for _, grant := range c.Grants {
		short := strings.TrimPrefix(grant, "urn:ietf:params:oauth:grant-type:")
		client.Grants = append(client.Grants, strings.ReplaceAll(short, "-", "_"))
	}
	return client
}

// AddClient adds a client, and returns it with its secret unless it is public or
// has keys.
func (a *Admin) AddClient(ctx context.Context, n NewClient) (Client, error) {
	if n.ID == "" {
		n.ID = issuer.OperatorClientPrefix + strings.ToLower(rand.Text())
	}
	if err := checkID(n.ID); err != nil {
		return Client{}, err
	}
	row := postgres.OperatorClient{ID: n.ID, Name: cmp.Or(n.Name, n.ID)}
	secret := ""
	if !n.Public && n.JWKS == nil {
		secret = issuer.NewClientSecret()
		digest := issuer.HashClientSecret(secret)
		row.Secret = &digest
	}
	if n.Public && n.JWKS != nil {
		return Client{}, invalid("a client with keys is not public: leave one of the two out")
	}
	if _, err := a.Check(n.ID, n.ClientSpec, digestsOf(row)); err != nil {
		return Client{}, invalid("the client is refused: %v", err)
	}
	var err error
	if row.Settings, err = json.Marshal(n.ClientSpec); err != nil {
		return Client{}, err
	}
	switch err := a.Store.AddOperatorClient(ctx, row); {
	case errors.Is(err, issuer.ErrExists):
		return Client{}, conflict("the client_id %q is taken: choose another, or leave it out to have one made", n.ID)
	case err != nil:
		return Client{}, err
	}
	client, err := a.Client(ctx, n.ID)
	client.Secret = secret
	return client, err
}

// maxID is what a client_id may have; some clients keep no longer ones.
const maxID = 128

func checkID(id string) error {
	name, ok := strings.CutPrefix(id, issuer.OperatorClientPrefix)
	bad := func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", r)
	}
	if !ok || name == "" || len(id) > maxID || strings.ContainsFunc(name, bad) {
		return invalid("a client_id of the database is %sNAME, of letters, digits, - _ and . only, %d at most: %q is not", issuer.OperatorClientPrefix, maxID, id)
	}
	return nil
}

// Bounds of the time for which the secret before goes on.
const (
	DefaultOverlap = 24 * time.Hour
	maxOverlap     = 30 * 24 * time.Hour
)

// RotateSecret gives a client another secret, and returns the client with it. The
// one before holds for overlap more, 0: not at all; one before that ends.
func (a *Admin) RotateSecret(ctx context.Context, id string, overlap time.Duration) (Client, error) {
	if overlap < 0 || overlap > maxOverlap {
		return Client{}, invalid("overlap %s is not from 0 to %s", overlap, maxOverlap)
	}
	before, err := a.changeable(ctx, id, "put the new secret first there, keep the old one below it while it is in use, and reload")
	if err != nil {
		return Client{}, err
	}
	if before.SecretSince == nil {
		return Client{}, conflict("the client %q has no secret: it is public, or signs with keys of its own", id)
	}
	secret := issuer.NewClientSecret()
	if err := a.Store.RotateOperatorSecret(ctx, id, issuer.HashClientSecret(secret), overlap); err != nil {
		return Client{}, orMissing(err, "the client %q is not there any more", id)
	}
	a.tell("client_secret_rotated", "client_id", id, "overlap", overlap.String())
	client, err := a.Client(ctx, id)
	client.Secret = secret
	return client, err
}

// changeable returns a client that is not of the configuration.
func (a *Admin) changeable(ctx context.Context, id, instead string) (Client, error) {
	client, err := a.Client(ctx, id)
	if err == nil && client.Kind == KindConfigured {
		return client, conflict("the client %q stands in the configuration, at %s: %s", id, cmp.Or(client.Source, "its place there"), instead)
	}
	return client, err
}

// Switched is what became of a client that was disabled, enabled or removed.
type Switched struct {
	ID       string `json:"client_id"`
	State    string `json:"state"` // disabled, enabled, removed
	Sessions int    `json:"sessions"`
}

const reasonClientEnded = "client_ended"

// DisableClient ends the sessions of a client of any kind and keeps it out. Its
// sessions go first, in batches; those of the last moment end with it.
func (a *Admin) DisableClient(ctx context.Context, id string) (s Switched, err error) {
	defer a.hear(ctx)
	s = Switched{ID: id, State: "disabled"}
	filter := postgres.SessionFilter{ClientID: id}
	if s.Sessions, _, err = a.endSessions(ctx, filter, reasonClientEnded, postgres.Position{}, 0); err != nil {
		return s, err
	}
	if err := a.Store.DisableClient(ctx, id); err != nil {
		return s, orMissing(err, "no client %q is known to the database; one of the configuration is from the server's first start with it", id)
	}
	a.tell("client_disabled", "client_id", id, "sessions", s.Sessions)
	return s, nil
}

// EnableClient undoes DisableClient; no session comes back.
func (a *Admin) EnableClient(ctx context.Context, id string) (Switched, error) {
	err := a.Store.EnableClient(ctx, id)
	if err == nil {
		a.tell("client_enabled", "client_id", id)
	}
	return Switched{ID: id, State: "enabled"}, orMissing(err, "no client %q is known to the database", id)
}

// RemoveClient removes a client that an operator has added, with all that belongs
// to it.
func (a *Admin) RemoveClient(ctx context.Context, id string) (Switched, error) {
	if _, err := a.changeable(ctx, id, "take it out there and reload; to keep it out meanwhile, disable it"); err != nil {
		return Switched{}, err
	}
	return a.remove(ctx, id)
}

// remove takes a client away. Interrupted, it leaves one that is disabled.
func (a *Admin) remove(ctx context.Context, id string) (s Switched, err error) {
	if s, err = a.DisableClient(ctx, id); err != nil {
		return s, err
	}
	s.State = "removed"
	for n := batchSize; n == batchSize; {
		if err := ctx.Err(); err != nil {
			return s, err
		}
		if n, err = a.Store.DeleteSessions(ctx, id, batchSize); err != nil {
			return s, err
		}
	}
	if err := a.Store.RemoveClient(ctx, id); err != nil {
		return s, orMissing(err, "the client %q is not there any more", id)
	}
	a.tell("client_removed", "client_id", id)
	return s, nil
}
