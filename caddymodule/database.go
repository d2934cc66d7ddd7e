package caddymodule

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/dpop"
	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/ratelimit"
	"github.com/caddy-scope/caddy-scope/validator"
)

// The embedded server, the pool and the verified tokens outlive a reload: the
// new configuration finds what the old one opened, whatever else has changed.
// Their keys hold nothing but what they are.
var (
	embeddedServers = caddy.NewUsagePool() // by data directory
	pools           = caddy.NewUsagePool() // by poolKey
	views           = caddy.NewUsagePool() // by viewKey
	tokenCaches     = caddy.NewUsagePool() // one, by tokenCacheKey
)

const (
	tokenCacheKey = "tokens"
	// maxTokens and maxTokenBytes bound the verified tokens that are kept. One
	// that found no room is verified again.
	maxTokens     = 50_000
	maxTokenBytes = 64 << 20
)

type sharedTokens struct{ *validator.TokenCache }

// Destruct implements caddy.Destructor.
func (sharedTokens) Destruct() error { return nil }

// provisionTokens finds the verified tokens of the process. They say nothing
// that a configuration decides, so that all of them share one cache.
func (a *App) provisionTokens() error {
	shared, _, err := tokenCaches.LoadOrNew(tokenCacheKey, func() (caddy.Destructor, error) {
		return sharedTokens{validator.NewTokenCache(maxTokens, maxTokenBytes)}, nil
	})
	if err != nil {
		return err
	}
	a.onRelease(func() error { _, err := tokenCaches.Delete(tokenCacheKey); return err })
	a.tokens = shared.(sharedTokens).TokenCache
	return nil
}

type poolKey struct {
	dsn, schema string
	pooled      bool
	reads       bool // the database of an authorization server elsewhere, which does its upkeep
}

// viewKey: one view for each pool and bound.
type viewKey struct {
	pool         poolKey
	maxStaleness time.Duration
}

type pooledServer struct{ *postgres.Embedded }

// Destruct implements caddy.Destructor.
func (s pooledServer) Destruct() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return s.Stop(ctx)
}

// pooledDB is the pool with what runs beside it, once for all configurations.
type pooledDB struct {
	key      poolKey
	db       *postgres.DB
	store    *postgres.Store
	sessions *postgres.SessionReader
	upkeep   *postgres.Upkeep
	clock    *postgres.Clock
	rates    *ratelimit.Table
	stop     context.CancelFunc
	ended    sync.WaitGroup
}

// Destruct implements caddy.Destructor.
func (d *pooledDB) Destruct() error {
	d.stop()
	d.ended.Wait() // writes what is pending
	d.db.Close()
	return nil
}

// followedView is a view with the goroutine that keeps it fresh.
type followedView struct {
	*postgres.SessionView
	stop  context.CancelFunc
	ended chan struct{}
}

// Destruct implements caddy.Destructor.
func (v *followedView) Destruct() error {
	v.stop()
	<-v.ended
	return nil
}

// openView finds or starts the view of session_check live. It may not be
// loaded when this returns; until then requests read Postgres.
func (a *App) openView(db *pooledDB) (*postgres.SessionView, error) {
	key := viewKey{db.key, time.Duration(a.MaxStaleness)}
	opened, _, err := views.LoadOrNew(key, func() (caddy.Destructor, error) {
		v := &followedView{SessionView: postgres.NewSessionView(db.db, db.sessions, key.maxStaleness), ended: make(chan struct{})}
		var running context.Context
		running, v.stop = context.WithCancel(context.Background())
		go func() { defer close(v.ended); v.Run(running) }()
		return v, nil
	})
	if err != nil {
		return nil, err
	}
	a.onRelease(func() error { _, err := views.Delete(key); return err })
	return opened.(*followedView).SessionView, nil
}

// open connects and loads everything that requests need. What it took from the
// pools is given back by release.
func (a *App) open(ctx context.Context) (*runtime, error) {
	if a.Remote != nil {
		return a.openRemote(ctx)
	}
	db, err := a.openDatabase(ctx)
	if err != nil {
		return nil, err
	}
	if err := a.openSecrets(ctx); err != nil {
		return nil, err
	}
	if err := db.store.CheckRootSecret(ctx, a.secrets.Fingerprints()); err != nil {
		return nil, err
	}
	rows := make([]postgres.ClientRow, 0, len(a.clients))
	for _, client := range a.clients {
		rows = append(rows, postgres.ClientRow{ID: client.ID, Name: client.Name})
	}
	if err := db.store.EnsureClients(ctx, rows); err != nil {
		return nil, err
	}
	keys, err := a.openKeys(ctx, db.store)
	if err != nil {
		return nil, err
	}
	running.keepEvents(db.upkeep, a)
	rt := &runtime{
		db: db.store, store: db.store, keys: keys, verify: keys,
		sessions: db.sessions, touch: db.upkeep.Touch, usage: db.upkeep.Usage, ready: db.db.Ready, clock: db.clock,
		pool: db.db, upkeep: db.upkeep,
		proofs: &dpop.Verifier{Nonces: a.secrets.Nonces(time.Now), Store: db.store, Now: time.Now},
	}
	if a.SessionCheck != "strict" {
		if rt.view, err = a.openView(db); err != nil {
			return nil, err
		}
		rt.sessions, rt.store = rt.view, &hearingStore{db.store, rt.view}
	}
	rt.limiter = ratelimit.NewLimiter(db.rates, a.secrets.RateKey())
	config, err := a.issuerConfig(rt)
	if err != nil {
		return nil, err
	}
	if rt.server, err = issuer.New(config); err != nil {
		return nil, err
	}
	rt.senders = a.sendEvents(ctx, db)
	return rt, nil
}

// openDatabase starts the embedded server if it is ours to start, brings the
// schema up to date and opens the pool.
func (a *App) openDatabase(ctx context.Context) (*pooledDB, error) {
	d, err := a.startServer(ctx)
	if err != nil {
		return nil, err
	}
	if err := postgres.Migrate(ctx, a.migration(d)); err != nil {
		return nil, err
	}
	return a.openPool(ctx, d)
}

func (a *App) openPool(ctx context.Context, d database) (*pooledDB, error) {
	key := poolKey{d.dsn, d.schema, d.pooled, a.Remote != nil}
	opened, _, err := pools.LoadOrNew(key, func() (caddy.Destructor, error) { return openPool(ctx, key) })
	if err != nil {
		return nil, err
	}
	a.onRelease(func() error { _, err := pools.Delete(key); return err })
	return opened.(*pooledDB), nil
}

// embeddedTurn is held while a server is started or stopped: one that is stopping, as
// the last request of a configuration that left has ended, has its data directory
// still.
var embeddedTurn sync.Mutex

// startServer starts the embedded server if there is one to start, and returns
// where the database is.
func (a *App) startServer(ctx context.Context) (database, error) {
	a.useRunningServer(ctx)
	d := a.database
	if !d.embedded {
		return d, nil
	}
	embeddedTurn.Lock()
	defer embeddedTurn.Unlock()
	server, _, err := embeddedServers.LoadOrNew(d.dataDir, func() (caddy.Destructor, error) {
		s, err := postgres.StartEmbedded(ctx, postgres.EmbeddedConfig{DataDir: d.dataDir, Logger: lastingLogger().Named("postgres")})
		return pooledServer{s}, err
	})
	if err != nil {
		return d, err
	}
	a.onRelease(func() error {
		embeddedTurn.Lock()
		defer embeddedTurn.Unlock()
		_, err := embeddedServers.Delete(d.dataDir)
		return err
	})
	d.dsn = server.(pooledServer).DSN()
	d.migrateDSN = d.dsn
	return d, nil
}

func (a *App) migration(d database) postgres.MigrateConfig {
	return postgres.MigrateConfig{
		DSN: d.migrateDSN, Schema: d.schema, Pooled: d.pooled, AdoptFor: d.adoptFor, Logger: a.logger.Named("migrations"),
	}
}

// openPool opens the pool and starts its upkeep, which lives as long as the
// pool does and not as the configuration that opened it: nothing of that is kept,
// neither its context nor its logger.
func openPool(ctx context.Context, key poolKey) (caddy.Destructor, error) {
	logger := lastingLogger()
	db, err := postgres.Open(ctx, postgres.Config{DSN: key.dsn, Schema: key.schema, Pooled: key.pooled, Logger: logger.Named("postgres")})
	if err != nil {
		return nil, err
	}
	d := &pooledDB{key: key, db: db, store: postgres.NewStore(db), sessions: postgres.NewSessionReader(db), upkeep: postgres.NewUpkeep(db), clock: postgres.NewClock(db, nil), rates: ratelimit.NewTable(nil)}
	var running context.Context
	running, d.stop = context.WithCancel(context.Background())
	if !key.reads {
		d.ended.Go(func() { d.upkeep.Run(running) })
	}
	d.ended.Go(func() { d.clock.Run(running) })
	d.ended.Go(func() { d.rates.Share(running, postgres.NewRates(db).Exchange, logger.Named("rates")) })
	return d, nil
}

// rootSecretKey is where a self-made root secret is kept in Caddy's storage.
const rootSecretKey = "oauth/root_secret"

// openSecrets makes sure that there is a root secret: the configured ones, or
// one that is made once, under a lock, and kept in Caddy's storage.
func (a *App) openSecrets(ctx context.Context) error {
	if a.secrets != nil {
		return nil
	}
	storage := a.ctx.Storage()
	if err := storage.Lock(ctx, rootSecretKey); err != nil {
		return fmt.Errorf("lock the root secret in Caddy's storage: %w", err)
	}
	defer func() {
		if err := storage.Unlock(context.WithoutCancel(ctx), rootSecretKey); err != nil {
			a.logger.Warn("unlock the root secret in Caddy's storage", zap.Error(err))
		}
	}()
	text, err := storage.Load(ctx, rootSecretKey)
	if errors.Is(err, fs.ErrNotExist) {
		text = []byte(hex.EncodeToString(issuer.NewRootSecret()))
		if err := storage.Store(ctx, rootSecretKey, text); err != nil {
			return fmt.Errorf("keep the root secret in Caddy's storage: %w", err)
		}
		a.logger.Info("made a root secret and keep it in Caddy's storage; for several nodes, set one with the word secret", zap.String("storage_key", rootSecretKey))
	} else if err != nil {
		return fmt.Errorf("read the root secret from Caddy's storage: %w", err)
	}
	if a.secrets, err = issuer.NewRootSecrets(text); err != nil {
		return fmt.Errorf("the root secret in Caddy's storage: %w", err)
	}
	return nil
}

// keyPolicy times the self-made signing keys.
func (a *App) keyPolicy() issuer.KeyPolicy {
	const (
		rotateEvery = 90 * 24 * time.Hour
		publishFor  = time.Hour // longer than anyone keeps the JWKS
		skew        = time.Minute
	)
	policy := issuer.KeyPolicy{RotateEvery: time.Duration(a.KeyRotationInterval), PublishFor: publishFor, RetireFor: time.Duration(a.AccessTokenTTL)}
	if policy.RotateEvery == 0 {
		policy.RotateEvery = rotateEvery
	}
	if policy.RetireFor == 0 {
		policy.RetireFor = 15 * time.Minute
	}
	for _, client := range a.clients {
		if client.AccessTokenTTL != nil {
			policy.RetireFor = max(policy.RetireFor, *client.AccessTokenTTL)
		}
	}
	policy.RetireFor += skew
	return policy
}

// openKeys loads the signing keys; self-made ones are then followed as they
// are rotated, by this node or another.
func (a *App) openKeys(ctx context.Context, store issuer.KeyStore) (*issuer.KeyRing, error) {
	if len(a.keys) > 0 {
		return issuer.NewStaticKeyRing(a.keys)
	}
	ring, err := issuer.OpenKeyRing(ctx, store, a.secrets, a.keyPolicy())
	if err != nil {
		return nil, err
	}
	go a.followKeys(ctx, ring)
	return ring, nil
}

// followKeys keeps the ring at what the keys are in the database, and moves them
// on when it is time.
func (a *App) followKeys(ctx context.Context, ring *issuer.KeyRing) {
	const looksPerMove = 100 // every half minute
	ticker := time.NewTicker(issuer.LookEvery)
	defer ticker.Stop()
	var failed bool
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		follow := ring.Look
		if n%looksPerMove == 0 {
			follow = ring.Refresh
		}
		err := follow(ctx)
		if err != nil && ctx.Err() == nil && !failed { // said once
			a.logger.Warn("cannot follow the signing keys; going on with those that are known", zap.Error(err))
		}
		failed = err != nil
	}
}

// onRelease notes what to give back, after stop; the last taken is given back
// first. What f holds may outlive the configuration: not the app.
func (a *App) onRelease(f func() error) { a.releases = append(a.releases, f) }

func release(taken []func() error) error {
	var errs []error
	for _, giveBack := range slices.Backward(taken) {
		errs = append(errs, giveBack())
	}
	return errors.Join(errs...)
}
