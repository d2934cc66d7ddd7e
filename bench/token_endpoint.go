package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const (
	// databaseConns is the size of the gateway's pool, and what pgbench gets.
	databaseConns = 10
	// codesPerRound are redeemed in one round, by the gateway and by pgbench.
	codesPerRound = 5000
	// sessionsPerConn are refreshed by one connection in turn. pgbench refreshes
	// as many in all.
	sessionsPerConn = 16
	// endpointDuration is how long sessions are refreshed in one round.
	endpointDuration = 2 * time.Second

	redirectURI  = "http://127.0.0.1/callback"
	codeVerifier = "bench-verifier-bench-verifier-bench-verifier-0"
)

// endpointResults are the token endpoint's, which can be measured alone.
type endpointResults struct {
	Time        time.Time          `json:"time"`
	Machine     machine            `json:"machine"`
	Connections int                `json:"connections"`
	Operations  []*endpointFigures `json:"operations"`
}

// endpointFigures are what one operation did in each round, through the gateway
// and by pgbench.
type endpointFigures struct {
	Operation string         `json:"operation"`
	Gateway   []endpointLoad `json:"gateway"`
	Pgbench   []endpointLoad `json:"pgbench"`
}

// endpointLoad is what one load did, and the CPU that each party took for one
// operation. All of them share the machine.
type endpointLoad struct {
	PerSecond      float64 `json:"per_second"`
	GatewayMicros  float64 `json:"gateway_us"`
	PostgresMicros float64 `json:"postgres_us"`
	ClientMicros   float64 `json:"client_us"` // of the load generator, or of pgbench
}

func operationsPerSecond(l endpointLoad) float64 { return l.PerSecond }
func gatewayMicros(l endpointLoad) float64       { return l.GatewayMicros }
func postgresMicros(l endpointLoad) float64      { return l.PostgresMicros }
func clientMicros(l endpointLoad) float64        { return l.ClientMicros }

func loads(all []endpointLoad, of func(endpointLoad) float64) []float64 {
	values := make([]float64, len(all))
	for i, l := range all {
		values[i] = of(l)
	}
	return values
}

func (f *endpointFigures) ratio() estimate {
	ratios := loads(f.Gateway, operationsPerSecond)
	for i, p := range loads(f.Pgbench, operationsPerSecond) {
		ratios[i] /= p
	}
	return estimateOf(ratios)
}

// tokenEndpoint compares what the token endpoint does in a second, over HTTP,
// with what pgbench does with the statements alone.
type tokenEndpoint struct {
	scene      *scene
	proxy      *proxy
	conn       *pgx.Conn
	postmaster int // its process
	codes      int // made so far

	find, lock, redeem, rotate string // the gateway's own statements
}

func measureTokenEndpoint(ctx context.Context, o options, s *scene) (results *endpointResults, err error) {
	live := scenarios[slices.IndexFunc(scenarios, func(sc scenario) bool { return sc.name == "live" })]
	p, err := startProxy(ctx, s, live)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	conn, err := pgx.Connect(ctx, s.database.DSN())
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	t := &tokenEndpoint{scene: s, proxy: p, conn: conn}
	if t.postmaster, err = parentOf(int(conn.PgConn().PID())); err != nil {
		return nil, err
	}

	// 1. Sessions to refresh: as many over HTTP as for pgbench.
	tokens, err := t.refreshTokens(ctx, o.conns)
	if err != nil {
		return nil, err
	}
	if err := t.insertPgbenchSessions(ctx, o.conns*sessionsPerConn); err != nil {
		return nil, err
	}
	if err := t.learnStatements(ctx); err != nil {
		return nil, fmt.Errorf("learn the statements: %w", err)
	}

	// 2. Rounds.
	code, refresh := &endpointFigures{Operation: "code exchange"}, &endpointFigures{Operation: "refresh"}
	for round := range max(5, o.rounds/2) {
		fmt.Fprintf(os.Stderr, "token endpoint: round %d\n", round+1)
		for _, step := range []struct {
			into *[]endpointLoad
			do   func() (endpointLoad, error)
		}{
			{&code.Gateway, func() (endpointLoad, error) { return t.exchangeCodes(ctx, o.conns) }},
			{&code.Pgbench, func() (endpointLoad, error) { return t.pgbenchCodes(ctx) }},
			{&refresh.Gateway, func() (endpointLoad, error) { return t.refresh(ctx, o.conns, endpointDuration, tokens) }},
			{&refresh.Pgbench, func() (endpointLoad, error) { return t.pgbenchRefresh(ctx, o.conns*sessionsPerConn) }},
		} {
			load, err := step.do()
			if err != nil {
				return nil, err
			}
			*step.into = append(*step.into, load)
		}
	}
	if o.profile != "" {
		err = p.writeProfile(ctx, o.profile, "refresh", func(duration time.Duration) error {
			_, err := t.refresh(ctx, o.conns, duration, tokens)
			return err
		})
	}
	return &endpointResults{time.Now().UTC().Truncate(time.Second), thisMachine(ctx), o.conns, []*endpointFigures{refresh, code}}, err
}

// load runs work on the gateway and accounts for it.
func (t *tokenEndpoint) load(work func() (*sample, error)) (load endpointLoad, err error) {
	before, err := t.cpuTimes()
	if err != nil {
		return load, err
	}
	done, err := work()
	if err != nil {
		return load, err
	}
	after, err := t.cpuTimes()
	if err != nil {
		return load, err
	}
	return endpointLoad{
		PerSecond:      float64(done.Requests) / done.Elapsed.Seconds(),
		GatewayMicros:  micros(after.gateway-before.gateway, done.Requests),
		PostgresMicros: micros(after.postgres-before.postgres, done.Requests),
		ClientMicros:   micros(after.client-before.client, done.Requests),
	}, nil
}

func micros(total time.Duration, operations int) float64 {
	return float64(total.Microseconds()) / float64(max(1, operations))
}

func codeText(n int) string { return "gpt_ac_bench_" + strconv.Itoa(n) }

// makeCodes stores count codes as consent would have, each of a user of its
// own, and returns the number of the first.
func (t *tokenEndpoint) makeCodes(ctx context.Context, count int) (first int, err error) {
	first = t.codes
	t.codes += count
	logins := make([]uuid.UUID, count)
	for i := range logins {
		logins[i] = uuid.New()
	}
	soon, now := time.Now().Add(time.Hour), time.Now()
	user := func(i int) string { return "user-" + codeText(first+i) }
	_, err = t.conn.CopyFrom(ctx, pgx.Identifier{"gpt_logins"}, []string{"id", "digest", "user_id", "expires_at"},
		pgx.CopyFromSlice(count, func(i int) ([]any, error) {
			digest := sha256.Sum256(logins[i][:])
			return []any{logins[i], digest[:], user(i), soon}, nil
		}))
	if err != nil {
		return 0, fmt.Errorf("insert logins: %w", err)
	}
	challenge := sha256.Sum256([]byte(codeVerifier))
	_, err = t.conn.CopyFrom(ctx, pgx.Identifier{"gpt_authorization_codes"},
		[]string{"code_hash", "request_id", "client_id", "user_id", "login_id", "redirect_uri", "resource", "scopes", "code_challenge", "auth_time", "expires_at"},
		pgx.CopyFromSlice(count, func(i int) ([]any, error) {
			digest := sha256.Sum256([]byte(codeText(first + i)))
			return []any{digest[:], uuid.New(), clientID, user(i), logins[i], redirectURI, t.proxy.issuer(), []string{"jobs:read"},
				base64.RawURLEncoding.EncodeToString(challenge[:]), now, soon}, nil
		}))
	if err != nil {
		return 0, fmt.Errorf("insert codes: %w", err)
	}
	// Or who plans a statement now would take the tables for small ones.
	_, err = t.conn.Exec(ctx, `VACUUM ANALYZE gpt_logins, gpt_authorization_codes, gpt_sessions`)
	return first, err
}

// post is the bytes of a request to the token endpoint.
func (t *tokenEndpoint) post(form url.Values) []byte {
	form.Set("client_id", clientID)
	body := form.Encode()
	return fmt.Appendf(nil, "POST /oauth/token HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s",
		t.proxy.address, len(body), body)
}

func (t *tokenEndpoint) exchangeRequest(n int) []byte {
	return t.post(url.Values{"grant_type": {"authorization_code"}, "code": {codeText(n)}, "code_verifier": {codeVerifier}, "redirect_uri": {redirectURI}})
}

func (t *tokenEndpoint) refreshRequest(token string) []byte {
	return t.post(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
}

// refreshTokens exchanges codes for refresh tokens, sessionsPerConn for each
// connection.
func (t *tokenEndpoint) refreshTokens(ctx context.Context, conns int) ([][]string, error) {
	first, err := t.makeCodes(ctx, conns*sessionsPerConn)
	if err != nil {
		return nil, err
	}
	tokens := make([][]string, conns)
	_, err = onConnections(t.proxy.address, conns, func(c *connection, i int, _ *sample) error {
		for n := range sessionsPerConn {
			token, err := refreshTokenOf(c.exchange(t.exchangeRequest(first + i*sessionsPerConn + n)))
			if err != nil {
				return err
			}
			tokens[i] = append(tokens[i], token)
		}
		return nil
	})
	return tokens, err
}

func refreshTokenOf(status int, body []byte, err error) (string, error) {
	var answer struct {
		RefreshToken string `json:"refresh_token"`
	}
	switch {
	case err != nil:
		return "", err
	case status != http.StatusOK:
		return "", fmt.Errorf("token endpoint: %d %s", status, body)
	}
	err = json.Unmarshal(body, &answer)
	return answer.RefreshToken, err
}

func (t *tokenEndpoint) exchangeCodes(ctx context.Context, conns int) (endpointLoad, error) {
	first, err := t.makeCodes(ctx, codesPerRound)
	if err != nil {
		return endpointLoad{}, err
	}
	requests := make([][]byte, codesPerRound)
	for i := range requests {
		requests[i] = t.exchangeRequest(first + i)
	}
	return t.load(func() (*sample, error) {
		loaded, err := closedLoop(ctx, t.proxy.address, conns, time.Minute, once(requests))
		if err == nil && (loaded.Requests < codesPerRound || loaded.Errors > 0) {
			err = fmt.Errorf("%d of %d codes were not exchanged", codesPerRound-loaded.Requests+loaded.Errors, codesPerRound)
		}
		return loaded, err
	})
}

// refresh rotates the tokens for duration; each successor is the next to go.
func (t *tokenEndpoint) refresh(ctx context.Context, conns int, duration time.Duration, tokens [][]string) (endpointLoad, error) {
	return t.load(func() (*sample, error) {
		ctx, cancel := context.WithTimeout(ctx, duration)
		defer cancel()
		return onConnections(t.proxy.address, conns, func(c *connection, i int, s *sample) error {
			for n := 0; ctx.Err() == nil; n++ {
				mine := &tokens[i][n%sessionsPerConn]
				successor, err := refreshTokenOf(c.exchange(t.refreshRequest(*mine)))
				if err != nil {
					return err
				}
				*mine = successor
				s.Requests++
			}
			return nil
		})
	})
}

// learnStatements takes the statements from the server, where the gateway
// has just run them, so that pgbench runs exactly those. For each there is a
// request after which it is the last one of its connection.
func (t *tokenEndpoint) learnStatements(ctx context.Context) (err error) {
	first, err := t.makeCodes(ctx, 3)
	if err != nil {
		return err
	}
	c, err := dial(t.proxy.address)
	if err != nil {
		return err
	}
	defer func() { _ = c.conn.Close() }()

	// 1. A code that nobody issued is looked for and not found.
	if _, _, err := c.exchange(t.exchangeRequest(-1)); err != nil {
		return err
	}
	if t.find, err = t.lastStatement(ctx, "%SELECT c.request_id%"); err != nil {
		return err
	}
	// 2. A redemption waits for the lock of its user.
	const lock, unlock = `SELECT pg_advisory_lock(hashtext('gpt_user'), hashtext($1))`, `SELECT pg_advisory_unlock_all()`
	if _, err := t.conn.Exec(ctx, lock, "user-"+codeText(first)); err != nil {
		return err
	}
	exchanged := make(chan error, 1)
	var token string
	go func() {
		token, err = refreshTokenOf(c.exchange(t.exchangeRequest(first)))
		exchanged <- err
	}()
	for range 100 {
		if t.lock, err = t.lastStatement(ctx, "%pg_advisory_xact_lock%gpt_authorization_codes%"); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	_, unlockErr := t.conn.Exec(ctx, unlock)
	if err := errors.Join(err, unlockErr, <-exchanged); err != nil {
		return err
	}
	// 3. It ends with the redemption, 4. and a refresh with the rotation.
	if t.redeem, err = t.lastStatement(ctx, "%code AS MATERIALIZED%"); err != nil {
		return err
	}
	if _, err := refreshTokenOf(c.exchange(t.refreshRequest(token))); err != nil {
		return err
	}
	t.rotate, err = t.lastStatement(ctx, "%rt_rotation%")
	return err
}

func (t *tokenEndpoint) lastStatement(ctx context.Context, like string) (string, error) {
	var statement string
	err := t.conn.QueryRow(ctx, `SELECT query FROM pg_stat_activity WHERE query LIKE $1 AND pid <> pg_backend_pid() LIMIT 1`, like).Scan(&statement)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", like, err)
	}
	return statement, nil
}
