package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/issuer/fetch"
)

const (
	maxDocument = 5 << 10 // bytes, as the draft recommends

	// Whatever the host says, a document is kept so long at least and at most.
	minDocumentFresh = time.Minute
	maxDocumentFresh = 24 * time.Hour
	// documentFresh where the host says nothing.
	documentFresh = time.Hour
	// maxDocumentStale: when the host does not answer, a document that was good
	// goes on for so long, so that its outage is not that of our users.
	maxDocumentStale = 24 * time.Hour
)

// documentClient returns the client whose client_id is the URL of its metadata.
// Postgres holds what was fetched, so that a flow that began on one node ends on
// another. ErrNotFound: there is no such document, or not one that will do;
// which, is for the log (SECURITY-CASES C-10).
func (r *registry) documentClient(ctx context.Context, clientID string) (*Client, error) {
	// 1. What needs no look at anything.
	if _, err := fetch.CheckURL(clientID); err != nil || r.policies.Denies(clientID) {
		return nil, ErrNotFound
	}
	// 2. What some node has fetched.
	kept, err := r.server.cfg.Store.FindDocument(ctx, clientID)
	found := err == nil
	switch {
	case err != nil && !errors.Is(err, ErrNotFound):
		return nil, fmt.Errorf("find document: %w", err)
	case found && kept.Disabled:
		return nil, ErrNotFound
	case found && (kept.Fresh > 0 || asItStands(ctx) && kept.Fresh > -maxDocumentStale):
		if client, err := r.readDocument(clientID, kept.Body); err == nil {
			return client, nil
		}
		// A newer version of this program may be stricter: fetch it again.
	case asItStands(ctx):
		return nil, ErrNotFound
	}
	// 3. The host's own word. Whoever comes meanwhile waits for the same answer,
	// which does not depend on the first one staying.
	fetched, err, _ := r.flights.Do(clientID, func() (any, error) {
		ctx := context.WithoutCancel(ctx)
		if since, err := r.server.cfg.Store.FindDocument(ctx, clientID); err == nil && !since.Disabled && since.Fresh > 0 {
			if client, err := r.readDocument(clientID, since.Body); err == nil {
				return client, nil // an answer ended just before this flight began
			}
		}
		return r.fetchDocument(ctx, clientID)
	})
	var throttled *throttledError
	if err == nil {
		return fetched.(*Client), nil
	}
	if found && kept.Fresh > -maxDocumentStale && !errors.Is(err, fetch.ErrGone) {
		if client, bad := r.readDocument(clientID, kept.Body); bad == nil {
			r.log("stale client metadata document used", clientID, err)
			return client, nil
		}
	}
	switch {
	case errors.As(err, &throttled), errors.Is(err, errStoreDocument):
		return nil, err
	case found && errors.Is(err, fetch.ErrGone):
		if err := r.server.cfg.Store.DropDocument(ctx, clientID); err != nil {
			return nil, fmt.Errorf("drop document: %w", err)
		}
	}
	r.log("client metadata document refused", clientID, err)
	return nil, ErrNotFound
}

// errStoreDocument: the document is good, but cannot be kept now.
var errStoreDocument = errors.New("keep document")

func (r *registry) fetchDocument(ctx context.Context, clientID string) (*Client, error) {
	u, err := url.Parse(clientID) // checked before
	if err != nil {
		return nil, err
	}
	if err := r.reserveFetch(ctx, u.Host); err != nil {
		return nil, err
	}
	document, err := r.fetcher.Get(ctx, clientID, maxDocument)
	if err != nil {
		return nil, err
	}
	client, err := r.readDocument(clientID, document.Body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", fetch.ErrGone, err)
	}
	fresh := document.Fresh
	if fresh < 0 {
		fresh = documentFresh
	}
	fresh = min(max(fresh, minDocumentFresh), maxDocumentFresh)
	kept := ClientDocument{ClientID: clientID, Name: displayName(client), Body: document.Body, Fresh: fresh}
	err = r.server.cfg.Store.KeepDocument(ctx, kept, r.with.ClientTTL, Origin{})
	switch {
	case errors.Is(err, ErrNotFound): // disabled
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errStoreDocument, err)
	}
	r.log("client metadata document fetched", clientID, nil)
	return client, nil
}

// readDocument makes a client of a document.
// draft-ietf-oauth-client-id-metadata-document section 4.
func (r *registry) readDocument(clientID string, body []byte) (*Client, error) {
	members, err := readJSONObject(body)
	if err != nil {
		return nil, err
	}
	// A document that is published holds no secret, and speaks of itself only.
	for _, secret := range []string{"client_secret", "client_secret_expires_at", "registration_access_token"} {
		if members[secret] != nil {
			return nil, fmt.Errorf("it holds %s", secret)
		}
	}
	var id string
	if err := json.Unmarshal(members["client_id"], &id); err != nil || id != clientID {
		return nil, errors.New("its client_id is not its URL")
	}
	var plural []string
	if raw := members["token_endpoint_auth_methods_supported"]; raw != nil {
		if err := json.Unmarshal(raw, &plural); err != nil {
			return nil, errors.New("its token_endpoint_auth_methods_supported is not a list")
		}
	}
	m, refused := r.server.readClientMetadata(members, methodNone)
	switch {
	case refused != nil:
		return nil, refused
	case m.Name == "":
		return nil, errors.New("it has no client_name")
	case slices.Contains([]string{methodBasic, methodPost, "client_secret_jwt"}, m.AuthMethod):
		return nil, errors.New("its authentication needs a shared secret")
	}
	// Some clients name all that they can, and the one that others should use
	// beside it (trap 21): any that both sides can will do.
	if plural == nil {
		plural = []string{m.AuthMethod}
	}
	m.authMethods = nil
	for _, method := range plural {
		if method == methodNone || method == methodPrivateKeyJWT && m.hasKeys() {
			m.authMethods = append(m.authMethods, method)
		}
	}
	if len(m.authMethods) == 0 {
		return nil, errors.New("it can authenticate in no way that there is here")
	}
	client := m.client(clientID, RegisteredByDocument)
	if m.JWKSURI != "" && slices.Contains(m.authMethods, methodPrivateKeyJWT) {
		client.JWKS = r.keys.at(m.JWKSURI)
	}
	return client, nil
}

func (r *registry) log(what, clientID string, err error) {
	r.server.cfg.Logger.Info(what, zap.String("client_id", clientID), zap.NamedError("cause", err))
}

type asItStandsKey struct{}

// withoutFetch lets a client be found as it was known last: to say its name.
func withoutFetch(ctx context.Context) context.Context {
	return context.WithValue(ctx, asItStandsKey{}, true)
}

func asItStands(ctx context.Context) bool { return ctx.Value(asItStandsKey{}) != nil }
