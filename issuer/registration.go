package issuer

import (
	"context"
	"errors"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/caddy-scope/caddy-scope/issuer/fetch"
)

// Registration is how clients register themselves.
type Registration struct {
	// Dynamic turns on RFC 7591 and RFC 7592 at /oauth/register.
	Dynamic bool
	// MetadataDocuments turns on client_ids that are URLs
	// (draft-ietf-oauth-client-id-metadata-document).
	MetadataDocuments bool
	// InitialAccessTokens are SHA-256 of the tokens of which a dynamic
	// registration must bring one. RFC 7591 section 3. None: anybody may register.
	InitialAccessTokens []Digest
	// ClientTTL is how long a client that nobody uses is kept. Zero: 90 days.
	ClientTTL time.Duration
	// Fetch is how documents and keys are fetched.
	Fetch fetch.Config
}

const (
	clientTTL = 90 * 24 * time.Hour

	// DynamicClientPrefix begins the client_id of every client that registered
	// dynamically. No configured client has it.
	DynamicClientPrefix = "dcr_"

	// OperatorClientPrefix begins the client_id of every client that an operator has
	// added to the database. No configured client has it.
	OperatorClientPrefix = "op_"

	// A stranger who names addresses makes us ask for them: so many times for one
	// host, for one network that asks, and in all. SECURITY-CASES C-09.
	fetchesPerHost    = 30
	fetchesPerNetwork = 30
	fetchesPerNode    = 300
	fetchWindow       = time.Minute
	fetchKeys         = 10_000
)

// IsMetadataDocument reports whether the client_id is the URL of a document.
func IsMetadataDocument(clientID string) bool { return strings.HasPrefix(clientID, "https://") }

// registry finds every client: those of the configuration, and those that
// registered themselves in a way that is on.
type registry struct {
	server     *Server
	configured ClientSource
	with       Registration
	policies   ClientPolicies

	fetcher *fetch.Fetcher
	flights singleflight.Group // by URL
	keys    *remoteKeys

	byHost, byNetwork, byNode *throttle
}

func newRegistry(s *Server) (*registry, error) {
	r := &registry{server: s, configured: s.cfg.Clients, policies: s.cfg.Policies}
	if s.cfg.Registration != nil {
		r.with = *s.cfg.Registration
	}
	setDefault(&r.with.ClientTTL, clientTTL)
	for _, policy := range r.policies {
		if err := CheckPolicyPattern(policy.Pattern); err != nil {
			return nil, err
		}
	}
	r.fetcher = fetch.New(r.with.Fetch)
	known, err := lru.New[string, fetchedKeys](maxFetchedKeys)
	if err != nil {
		return nil, err
	}
	r.keys = &remoteKeys{fetcher: r.fetcher, reserve: r.reserveFetch, now: s.cfg.Now, known: known,
		refused: func(address string, err error) { r.log("keys of a client refused", address, err) }}
	r.byHost = newThrottle(fetchesPerHost, fetchWindow, fetchKeys, s.cfg.Now)
	r.byNetwork = newThrottle(fetchesPerNetwork, fetchWindow, fetchKeys, s.cfg.Now)
	r.byNode = newThrottle(fetchesPerNode, fetchWindow, 1, s.cfg.Now)
	return r, nil
}

// Client implements ClientSource. The configuration comes first: an owner may
// write down what a client with a URL for a name may do.
func (r *registry) Client(ctx context.Context, clientID string) (*Client, error) {
	client, err := r.configured.Client(ctx, clientID)
	if errors.Is(err, ErrNotFound) {
		switch {
		case r.with.MetadataDocuments && IsMetadataDocument(clientID):
			client, err = r.documentClient(ctx, clientID)
		case r.with.Dynamic && strings.HasPrefix(clientID, DynamicClientPrefix):
			client, err = r.dynamicClient(ctx, clientID)
		}
	}
	if err != nil {
		return nil, err
	}
	return r.policies.Limit(client)
}

// reserveFetch counts a fetch from host on behalf of whoever asks.
func (r *registry) reserveFetch(ctx context.Context, host string) error {
	for _, t := range []struct {
		*throttle
		key string
	}{{r.byNetwork, callerNetwork(ctx)}, {r.byHost, host}, {r.byNode, "node"}} {
		if ok, retryAfter := t.Reserve(t.key); !ok {
			return &throttledError{retryAfter: retryAfter}
		}
	}
	return nil
}
