package issuer

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/caddy-scope/caddy-scope/issuer/fetch"
)

const (
	maxKeySet      = 32 << 10 // bytes
	maxFetchedKeys = 1000     // key sets that a node remembers

	minKeysFresh = time.Minute
	maxKeysFresh = time.Hour
	keysFresh    = 10 * time.Minute // where the host says nothing
)

// fetchedKeys are the keys at a jwks_uri.
type fetchedKeys struct {
	keys       ClientKeys
	fetched    time.Time
	freshUntil time.Time
}

// remoteKeys are key sets at URLs, as they were fetched last.
type remoteKeys struct {
	fetcher *fetch.Fetcher
	reserve func(ctx context.Context, host string) error // counts a fetch, or refuses it
	refused func(address string, err error)              // is told why a set is none
	now     func() time.Time

	known   *lru.Cache[string, fetchedKeys] // by URL
	flights singleflight.Group              // by URL
}

// at returns what gets the keys at the address. RFC 7591 section 2.
func (k *remoteKeys) at(address string) func(context.Context) (ClientKeys, error) {
	return func(ctx context.Context) (ClientKeys, error) {
		now := k.now()
		known, found := k.known.Get(address)
		if found && now.Before(known.freshUntil) && (!newestKeys(ctx) || now.Before(known.fetched.Add(minKeysFresh))) {
			return known.keys, nil
		}
		fetched, err, _ := k.flights.Do(address, func() (any, error) {
			if since, ok := k.known.Get(address); ok && since.fetched != known.fetched {
				return since.keys, nil // another flight ended just before this one began
			}
			return k.fetch(context.WithoutCancel(ctx), address)
		})
		switch {
		case err == nil:
			return fetched.(ClientKeys), nil
		case found && now.Before(known.fetched.Add(maxKeysFresh)):
			return known.keys, nil // its host's outage, or too many requests
		case errors.Is(err, fetch.ErrGone):
			k.refused(address, err)
			return nil, nil // none: nothing verifies
		}
		return nil, err
	}
}

func (k *remoteKeys) fetch(ctx context.Context, address string) (ClientKeys, error) {
	u, err := url.Parse(address) // checked before
	if err != nil {
		return nil, err
	}
	if err := k.reserve(ctx, u.Host); err != nil {
		return nil, err
	}
	document, err := k.fetcher.Get(ctx, address, maxKeySet)
	if err != nil {
		return nil, err
	}
	if _, err := readJSONObject(document.Body); err != nil {
		return nil, fmt.Errorf("%w: %w", fetch.ErrGone, err)
	}
	keys, err := parseForeignKeys(document.Body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", fetch.ErrGone, err)
	}
	fresh := document.Fresh
	if fresh < 0 {
		fresh = keysFresh
	}
	now := k.now()
	k.known.Add(address, fetchedKeys{keys, now, now.Add(min(max(fresh, minKeysFresh), maxKeysFresh))})
	return keys, nil
}

type newestKeysKey struct{}

// withNewestKeys asks for keys that are no older than a minute: the client may
// have new ones since.
func withNewestKeys(ctx context.Context) context.Context {
	return context.WithValue(ctx, newestKeysKey{}, true)
}

func newestKeys(ctx context.Context) bool { return ctx.Value(newestKeysKey{}) != nil }
