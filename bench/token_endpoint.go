package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
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
	postmaster int                   // its process
	codes      int                   // made so far
	user       func(code int) string // whom a code is for

	find, lock, redeem, rotate string // the gateway's own statements
}

func measureTokenEndpoint(ctx context.Context, o options, s *scene) (results *endpointResults, err error) {
	p, err := startProxy(ctx, s, scenarioOf("live"))
	if err != nil {
		return nil, err
	}
	defer p.stop()
	t, err := newTokenEndpoint(ctx, s, p)
	if err != nil {
		return nil, err
	}
	defer t.close(ctx)

	// 1. Sessions to refresh: as many over HTTP as for pgbench.
	tokens, err := t.refreshTokens(ctx, o.conns, o.conns*sessionsPerConn)
	if err != nil {
		return nil, err
	}
	requests := make([][][]byte, o.conns)
	for i, token := range tokens {
		requests[i%o.conns] = append(requests[i%o.conns], t.refreshRequest(token))
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
		if _, err := t.conn.Exec(ctx, `VACUUM ANALYZE gpt_sessions`); err != nil {
			return nil, err
		}
		for _, step := range []struct {
			into *[]endpointLoad
			do   func() (endpointLoad, error)
		}{
			{&code.Gateway, func() (endpointLoad, error) { return t.exchangeCodes(ctx, o.conns, codesPerRound) }},
			{&code.Pgbench, func() (endpointLoad, error) { return t.pgbenchCodes(ctx) }},
			{&refresh.Gateway, func() (endpointLoad, error) { return t.refresh(ctx, o.conns, endpointDuration, requests) }},
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
		err = errors.Join(p.writeProfile(ctx, o.profile, "refresh", func(duration time.Duration) error {
			_, err := t.refresh(ctx, o.conns, duration, requests)
			return err
		}), p.writeProfile(ctx, o.profile, "code-exchange", func(duration time.Duration) error {
			for end := time.Now().Add(duration); time.Now().Before(end); {
				if _, err := t.exchangeCodes(ctx, o.conns, codesPerRound); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	return &endpointResults{time.Now().UTC().Truncate(time.Second), thisMachine(ctx), o.conns, []*endpointFigures{refresh, code}}, err
}

func newTokenEndpoint(ctx context.Context, s *scene, p *proxy) (*tokenEndpoint, error) {
	conn, err := pgx.Connect(ctx, s.dsn)
	if err != nil {
		return nil, err
	}
	t := &tokenEndpoint{scene: s, proxy: p, conn: conn, user: func(code int) string { return "user-" + codeText(code) }}
	t.postmaster, err = parentOf(int(conn.PgConn().PID()))
	return t, err
}

func (t *tokenEndpoint) close(ctx context.Context) { _ = t.conn.Close(context.WithoutCancel(ctx)) }

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

// makeCodes stores count codes as consent would have, and returns the number of
// the first.
func (t *tokenEndpoint) makeCodes(ctx context.Context, count int) (first int, err error) {
	first = t.codes
	t.codes += count
	logins := make([]uuid.UUID, count)
	for i := range logins {
		logins[i] = uuid.New()
	}
	soon, now := time.Now().Add(time.Hour), time.Now()
	_, err = t.conn.CopyFrom(ctx, pgx.Identifier{"gpt_logins"}, []string{"id", "digest", "user_id", "expires_at"},
		pgx.CopyFromSlice(count, func(i int) ([]any, error) {
			digest := sha256.Sum256(logins[i][:])
			return []any{logins[i], digest[:], t.user(first + i), soon}, nil
		}))
	if err != nil {
		return 0, fmt.Errorf("insert logins: %w", err)
	}
	challenge := sha256.Sum256([]byte(codeVerifier))
	_, err = t.conn.CopyFrom(ctx, pgx.Identifier{"gpt_authorization_codes"},
		[]string{"code_hash", "request_id", "client_id", "user_id", "login_id", "redirect_uri", "resource", "scopes", "code_challenge", "auth_time", "expires_at"},
		pgx.CopyFromSlice(count, func(i int) ([]any, error) {
			digest := sha256.Sum256([]byte(codeText(first + i)))
			return []any{digest[:], uuid.New(), clientID, t.user(first + i), logins[i], redirectURI, t.proxy.issuer(), []string{"jobs:read"},
				base64.RawURLEncoding.EncodeToString(challenge[:]), now, soon}, nil
		}))
	if err != nil {
		return 0, fmt.Errorf("insert codes: %w", err)
	}
	// Or who plans a statement now would take the tables for small ones.
	_, err = t.conn.Exec(ctx, `VACUUM ANALYZE gpt_logins, gpt_authorization_codes`)
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

// refreshRequest ends with the token.
func (t *tokenEndpoint) refreshRequest(token []byte) []byte {
	return t.post(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {string(token)}})
}

// refreshTokens exchanges count codes for refresh tokens.
func (t *tokenEndpoint) refreshTokens(ctx context.Context, conns, count int) ([][]byte, error) {
	first, err := t.makeCodes(ctx, count)
	if err != nil {
		return nil, err
	}
	tokens := make([][]byte, count)
	_, err = onConnections(t.proxy.address, conns, func(c *connection, i int, _ *sample) error {
		for n := i; n < count; n += conns {
			token, err := refreshTokenOf(c.exchange(t.exchangeRequest(first + n)))
			if err != nil {
				return err
			}
			tokens[n] = bytes.Clone(token)
		}
		return nil
	})
	return tokens, err
}

// refreshTokenOf finds the refresh token in an answer without reading the rest:
// the generator shares the machine with what it measures. It is valid until the
// connection's next answer.
func refreshTokenOf(status int, body []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	_, rest, found := bytes.Cut(body, []byte(`"refresh_token":"`))
	token, _, ended := bytes.Cut(rest, []byte(`"`))
	if status != http.StatusOK || !found || !ended {
		return nil, fmt.Errorf("token endpoint: %d %s", status, body)
	}
	return token, nil
}

// exchangeCodes redeems count new codes.
func (t *tokenEndpoint) exchangeCodes(ctx context.Context, conns, count int) (endpointLoad, error) {
	first, err := t.makeCodes(ctx, count)
	if err != nil {
		return endpointLoad{}, err
	}
	requests := make([][]byte, count)
	for i := range requests {
		requests[i] = t.exchangeRequest(first + i)
	}
	return t.load(func() (*sample, error) {
		loaded, err := closedLoop(ctx, t.proxy.address, conns, time.Minute, once(requests))
		if err == nil && (loaded.Requests < count || loaded.Errors > 0) {
			err = fmt.Errorf("%d of %d codes were not exchanged", count-loaded.Requests+loaded.Errors, count)
		}
		return loaded, err
	})
}

// refresh rotates the tokens for duration; each successor takes the place of
// its predecessor in the request.
func (t *tokenEndpoint) refresh(ctx context.Context, conns int, duration time.Duration, requests [][][]byte) (endpointLoad, error) {
	return t.load(func() (*sample, error) {
		ctx, cancel := context.WithTimeout(ctx, duration)
		defer cancel()
		return onConnections(t.proxy.address, conns, func(c *connection, i int, s *sample) error {
			for n := 0; ctx.Err() == nil; n++ {
				request := requests[i][n%sessionsPerConn]
				successor, err := refreshTokenOf(c.exchange(request))
				if err != nil {
					return err
				}
				copy(request[len(request)-len(successor):], successor)
				s.Requests++
			}
			return nil
		})
	})
}
