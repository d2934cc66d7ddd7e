package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// pgbench's own sessions have ids that it can compute.
const pgbenchSession = `('00000000-0000-4000-8000-' || lpad(:session::text, 12, '0'))::uuid`

func (t *tokenEndpoint) insertPgbenchSessions(ctx context.Context, count int) error {
	scopes := []string{"jobs:read"}
	expires := time.Now().Add(24 * time.Hour)
	_, err := t.conn.CopyFrom(ctx, pgx.Identifier{"gpt_sessions"}, []string{"id", "user_id", "client_id", "resource", "scopes", "granted_scopes", "expires_at"},
		pgx.CopyFromSlice(count, func(i int) ([]any, error) {
			return []any{fmt.Sprintf("00000000-0000-4000-8000-%012d", i), fmt.Sprintf("pgbench-%d", i), clientID, t.proxy.issuer(), scopes, scopes, expires}, nil
		}))
	if err != nil {
		return fmt.Errorf("insert sessions for pgbench: %w", err)
	}
	return nil
}

// pgbenchCodes looks for, locks and redeems codes, in two round trips as the
// gateway does.
func (t *tokenEndpoint) pgbenchCodes(ctx context.Context) (endpointLoad, error) {
	first, err := t.makeCodes(ctx, codesPerRound)
	if err != nil {
		return endpointLoad{}, err
	}
	const digest = `sha256(('gpt_ac_bench_' || :code::text)::bytea)`
	const each = codesPerRound / databaseConns
	script := fmt.Sprintf("\\set n :n + 1\n\\set code %d + :client_id * %d + :n\n%s;\n\\startpipeline\n%s;\n%s;\n\\endpipeline\n", first, each,
		withArguments(t.find, "array["+digest+"]", ":attempts"),
		withArguments(t.lock, digest),
		withArguments(t.redeem, digest, ":attempts", ":ttl", ":idle", ":access", ":limit", ":address", ":request", "NULL", ":agent"))
	return t.pgbench(ctx, script, codesPerRound, "-t", strconv.Itoa(each),
		"-D", "attempts=5", "-D", "ttl=2592000", "-D", "idle=0", "-D", "access=900", "-D", "limit=0")
}

// pgbenchRefresh rotates its sessions in turn, each client its own.
func (t *tokenEndpoint) pgbenchRefresh(ctx context.Context, sessions int) (endpointLoad, error) {
	if _, err := t.conn.Exec(ctx, `UPDATE gpt_sessions SET rt_counter = 0, rt_previous = NULL, rt_rotation = NULL, rotated_at = NULL WHERE user_id LIKE 'pgbench-%'`); err != nil {
		return endpointLoad{}, err
	}
	script := fmt.Sprintf("\\set n :n + 1\n\\set session :client_id * %[1]d + :n %% %[1]d\n\\set counter :n / %[1]d\n%[2]s;\n", sessions/databaseConns,
		withArguments(t.rotate, pgbenchSession, ":client", ":counter", ":grace", ":idle", ":access", ":address", ":request", ":agent", "NULL", "NULL"))
	return t.pgbench(ctx, script, 0, "-T", strconv.Itoa(int(endpointDuration.Seconds())),
		"-D", "client="+clientID, "-D", "grace=60", "-D", "idle=0", "-D", "access=900")
}

// withArguments puts expressions in the place of $1, $2 ... Variables of pgbench
// become parameters of its prepared statement, as they are of the gateway's.
func withArguments(statement string, arguments ...string) string {
	for i := len(arguments); i > 0; i-- { // $10 before $1
		statement = strings.ReplaceAll(statement, "$"+strconv.Itoa(i), arguments[i-1])
	}
	return strings.Join(strings.Fields(statement), " ")
}

var (
	tpsLine       = regexp.MustCompile(`tps = ([0-9.]+)`)
	processedLine = regexp.MustCompile(`number of transactions actually processed: ([0-9]+)`)
	failedLine    = regexp.MustCompile(`number of failed transactions: ([0-9]+)`)
)

// pgbench runs the script on as many connections as the gateway has, through
// the same socket, each statement prepared once. It must have processed want
// transactions; zero: any number.
func (t *tokenEndpoint) pgbench(ctx context.Context, script string, want int, arguments ...string) (endpointLoad, error) {
	file := filepath.Join(t.scene.dir, "pgbench.sql")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		return endpointLoad{}, err
	}
	before, err := postgresCPU(t.postmaster)
	if err != nil {
		return endpointLoad{}, err
	}
	cmd := exec.CommandContext(ctx, pgbenchPath(), append(arguments, "-D", "n=-1", "-D", "address=127.0.0.1", "-D", "request="+uuid.NewString(), "-D", "agent=bench", "-n", "-M", "prepared", "-c", strconv.Itoa(databaseConns), "-j", "2", "-f", file, t.scene.dsn)...)
	out, err := cmd.CombinedOutput()
	tps, processed, failed := tpsLine.FindSubmatch(out), processedLine.FindSubmatch(out), failedLine.FindSubmatch(out)
	if err != nil || tps == nil || processed == nil || failed != nil && !bytes.Equal(failed[1], []byte("0")) {
		return endpointLoad{}, fmt.Errorf("pgbench: %w\n%s", errors.Join(err, errors.New("see its output")), out)
	}
	count, err := strconv.Atoi(string(processed[1]))
	if err != nil || count == 0 || want > 0 && count != want {
		return endpointLoad{}, fmt.Errorf("pgbench: %d transactions instead of %d", count, want)
	}
	after, err := postgresCPU(t.postmaster)
	if err != nil {
		return endpointLoad{}, err
	}
	load := endpointLoad{
		ClientMicros:   micros(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime(), count),
		PostgresMicros: micros(after-before, count),
	}
	load.PerSecond, err = strconv.ParseFloat(string(tps[1]), 64)
	return load, err
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
