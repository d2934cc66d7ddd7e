package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const (
	// databaseConns is the size of the gateway's pool, and what pgbench gets.
	databaseConns = 10
	// codesPerRound are redeemed in one round, by the gateway and by pgbench.
	codesPerRound = 2000
	// sessionsPerConn are refreshed by one connection in turn.
	sessionsPerConn = 16

	redirectURI  = "http://127.0.0.1/callback"
	codeVerifier = "bench-verifier-bench-verifier-bench-verifier-0"
)

// endpointFigures are the operations per second of each round.
type endpointFigures struct {
	Operation string    `json:"operation"`
	Gateway   []float64 `json:"gateway_per_second"`
	Pgbench   []float64 `json:"pgbench_per_second"`
}

func (f *endpointFigures) ratio() estimate {
	ratios := slices.Clone(f.Gateway)
	for i, p := range f.Pgbench {
		ratios[i] /= p
	}
	return estimateOf(ratios)
}

// tokenEndpoint compares what the token endpoint does in a second, over HTTP,
// with what pgbench does with the statements alone.
type tokenEndpoint struct {
	scene *scene
	proxy *proxy
	conn  *pgx.Conn
	codes int // made so far

	find, lock, redeem, rotate string // the gateway's own statements
}

func measureTokenEndpoint(ctx context.Context, o options, s *scene) (figures []*endpointFigures, err error) {
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

	// 1. Sessions to refresh: as many over HTTP as for pgbench.
	tokens, err := t.refreshTokens(ctx, o.conns)
	if err != nil {
		return nil, err
	}
	if err := t.insertPgbenchSessions(ctx); err != nil {
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
			into *[]float64
			do   func() (float64, error)
		}{
			{&code.Gateway, func() (float64, error) { return t.exchangeCodes(ctx, o.conns) }},
			{&code.Pgbench, func() (float64, error) { return t.pgbenchCodes(ctx) }},
			{&refresh.Gateway, func() (float64, error) { return t.refresh(ctx, o.conns, o.duration, tokens) }},
			{&refresh.Pgbench, func() (float64, error) { return t.pgbenchRefresh(ctx, o.duration) }},
		} {
			rate, err := step.do()
			if err != nil {
				return nil, err
			}
			*step.into = append(*step.into, rate)
		}
	}
	if o.profile != "" {
		err = p.writeProfile(ctx, o.profile, "refresh", func(duration time.Duration) error {
			_, err := t.refresh(ctx, o.conns, duration, tokens)
			return err
		})
	}
	return []*endpointFigures{refresh, code}, err
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
	return first, nil
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

func (t *tokenEndpoint) exchangeCodes(ctx context.Context, conns int) (float64, error) {
	first, err := t.makeCodes(ctx, codesPerRound)
	if err != nil {
		return 0, err
	}
	requests := make([][]byte, codesPerRound)
	for i := range requests {
		requests[i] = t.exchangeRequest(first + i)
	}
	loaded, err := closedLoop(ctx, t.proxy.address, conns, time.Minute, once(requests))
	if err == nil && (loaded.Requests < codesPerRound || loaded.Errors > 0) {
		err = fmt.Errorf("%d of %d codes were not exchanged", codesPerRound-loaded.Requests+loaded.Errors, codesPerRound)
	}
	if err != nil {
		return 0, err
	}
	return codesPerRound / loaded.Elapsed.Seconds(), nil
}

// refresh rotates the tokens for duration; each successor is the next to go.
func (t *tokenEndpoint) refresh(ctx context.Context, conns int, duration time.Duration, tokens [][]string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	loaded, err := onConnections(t.proxy.address, conns, func(c *connection, i int, s *sample) error {
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
	if err != nil {
		return 0, err
	}
	return float64(loaded.Requests) / loaded.Elapsed.Seconds(), nil
}

// pgbench's own sessions have ids that it can compute: client * sessionsPerConn
// + n in the last digits.
const pgbenchSession = `('00000000-0000-4000-8000-' || lpad(:session::text, 12, '0'))::uuid`

func (t *tokenEndpoint) insertPgbenchSessions(ctx context.Context) error {
	scopes := []string{"jobs:read"}
	expires := time.Now().Add(24 * time.Hour)
	_, err := t.conn.CopyFrom(ctx, pgx.Identifier{"gpt_sessions"}, []string{"id", "user_id", "client_id", "resource", "scopes", "granted_scopes", "expires_at"},
		pgx.CopyFromSlice(databaseConns*sessionsPerConn, func(i int) ([]any, error) {
			return []any{fmt.Sprintf("00000000-0000-4000-8000-%012d", i), fmt.Sprintf("pgbench-%d", i), clientID, t.proxy.issuer(), scopes, scopes, expires}, nil
		}))
	return err
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

func (t *tokenEndpoint) pgbenchCodes(ctx context.Context) (float64, error) {
	first, err := t.makeCodes(ctx, codesPerRound)
	if err != nil {
		return 0, err
	}
	const digest = `sha256(('gpt_ac_bench_' || :code::text)::bytea)`
	const each = codesPerRound / databaseConns
	script := fmt.Sprintf("\\set n :n + 1\n\\set code %d + :client_id * %d + :n\n%s;\n\\startpipeline\n%s;\n%s;\n\\endpipeline\n", first, each,
		withArguments(t.find, digest, "5"),
		withArguments(t.lock, digest),
		withArguments(t.redeem, digest, "5", "2592000", "0", "900", "0", "'127.0.0.1'", "'"+uuid.NewString()+"'", "NULL"))
	return t.pgbench(ctx, script, "-D", "n=-1", "-t", strconv.Itoa(each))
}

func (t *tokenEndpoint) pgbenchRefresh(ctx context.Context, duration time.Duration) (float64, error) {
	if _, err := t.conn.Exec(ctx, `UPDATE gpt_sessions SET rt_counter = 0, rt_previous = NULL, rt_rotation = NULL, rotated_at = NULL WHERE user_id LIKE 'pgbench-%'`); err != nil {
		return 0, err
	}
	script := fmt.Sprintf("\\set n :n + 1\n\\set session :client_id * %[1]d + :n %% %[1]d\n\\set counter :n / %[1]d\n%[2]s;\n", sessionsPerConn,
		withArguments(t.rotate, pgbenchSession, "'"+clientID+"'", ":counter", "30", "0", "900", "'127.0.0.1'", "'"+uuid.NewString()+"'"))
	return t.pgbench(ctx, script, "-D", "n=-1", "-T", strconv.Itoa(max(1, int(duration.Seconds()))))
}

// withArguments puts expressions in the place of $1, $2 ...
func withArguments(statement string, arguments ...string) string {
	for i := len(arguments); i > 0; i-- { // $10 before $1
		statement = strings.ReplaceAll(statement, "$"+strconv.Itoa(i), arguments[i-1])
	}
	return strings.Join(strings.Fields(statement), " ")
}

var (
	tpsLine    = regexp.MustCompile(`tps = ([0-9.]+)`)
	failedLine = regexp.MustCompile(`number of failed transactions: ([0-9]+)`)
)

// pgbench returns transactions per second.
func (t *tokenEndpoint) pgbench(ctx context.Context, script string, arguments ...string) (float64, error) {
	file := filepath.Join(t.scene.dir, "pgbench.sql")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, pgbenchPath(), append(arguments, "-n", "-M", "prepared", "-c", strconv.Itoa(databaseConns), "-j", "2", "-f", file, t.scene.database.DSN())...)
	out, err := cmd.CombinedOutput()
	tps, failed := tpsLine.FindSubmatch(out), failedLine.FindSubmatch(out)
	if err != nil || tps == nil || failed != nil && !bytes.Equal(failed[1], []byte("0")) {
		return 0, fmt.Errorf("pgbench: %w\n%s", errors.Join(err, errors.New("see its output")), out)
	}
	return strconv.ParseFloat(string(tps[1]), 64)
}

// pgbenchPath is pgbench, which Debian keeps beside the server.
func pgbenchPath() string {
	if path, err := exec.LookPath("pgbench"); err == nil {
		return path
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench")
	if len(found) > 0 {
		return found[len(found)-1]
	}
	return "pgbench"
}
