//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
)

// OPS-14: TestStateMovesToAnotherServer by two commands. What clients and browsers hold goes
// on there, and what was revoked stays so.
func TestStateMovesToAnotherServer(t *testing.T) {
	t.Parallel()
	was := cluster.New(t, cluster.Config{Nodes: 1, Options: "refresh_grace 0s"})
	is := cluster.New(t, cluster.Config{Nodes: 1, Options: "refresh_grace 0s", NotStarted: true})
	old, now := was.Nodes[0], is.Nodes[0]
	browser := was.SignIn(t, "ada@example.com")
	ada, unused := browser.Connect(t, old, "jobs:read"), browser.Connect(t, old, "jobs:read")
	bob := was.SignIn(t, "bob@example.com").Connect(t, old, "jobs:read")
	before := ada.Refresh
	ada, answer := cluster.Refresh(t.Context(), old, ada.Refresh)
	if !answer.OK() || !old.Get(t.Context(), "/jobs", bob.Access).OK() {
		t.Fatalf("before the move: %s", answer)
	}
	if answer := cluster.Revoke(t.Context(), old, bob.Refresh); !answer.OK() {
		t.Fatalf("revoke: %s", answer)
	}
	old.Terminate()
	if err := old.Ended(t); err != nil {
		t.Fatal(err)
	}
	file := exportTo(t, old, filepath.Join(t.TempDir(), "state.jsonl"))
	if out := now.Command(t, "oauth", "import", file); !strings.Contains(out, "imported ") {
		t.Fatal(out)
	}
	now.Start(t)
	now.AwaitReady(t)
	for name, token := range map[string]cluster.Token{"ada": ada, "her second client": unused} {
		if answer := now.Get(t.Context(), "/jobs", token.Access); !answer.OK() {
			t.Errorf("the access token of %s: %s", name, answer)
		}
	}
	if answer := now.Get(t.Context(), "/jobs", bob.Access); answer.Status != http.StatusUnauthorized {
		t.Errorf("a revoked access token: %s", answer)
	}
	if _, answer := cluster.Refresh(t.Context(), now, bob.Refresh); !strings.Contains(string(answer.Body), "invalid_grant") {
		t.Errorf("a revoked refresh token: %s", answer)
	}
	browser.Connect(t, now, "jobs:read") // her account is there, too
	next, answer := cluster.Refresh(t.Context(), now, unused.Refresh)
	if !answer.OK() || !now.Get(t.Context(), "/jobs", next.Access).OK() {
		t.Errorf("the refresh token: %s", answer)
	}
	if _, answer := cluster.Refresh(t.Context(), now, unused.Refresh); !strings.Contains(string(answer.Body), "invalid_grant") {
		t.Errorf("the refresh token, again: %s", answer)
	}
	if _, answer := cluster.Refresh(t.Context(), now, before); !strings.Contains(string(answer.Body), "invalid_grant") {
		t.Errorf("a refresh token that was used before the move: %s", answer)
	}
}

// exportTo runs `caddy oauth export > file` at the node.
func exportTo(t *testing.T, n *cluster.Node, file string) string {
	t.Helper()
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	export := n.Program(t, "oauth", "export")
	var said bytes.Buffer
	export.Stdout, export.Stderr = out, &said
	if err := export.Run(); err != nil || !strings.Contains(said.String(), "wrote ") {
		t.Fatalf("%v %s", err, &said)
	}
	return file
}

// OPS-15: TestInterruptedMovesDoNoHarm: Ctrl-C in the middle of an export leaves a file that
// is refused; in the middle of an import, a database that is as empty as before.
func TestInterruptedMovesDoNoHarm(t *testing.T) {
	t.Parallel()
	was := cluster.New(t, cluster.Config{Nodes: 1})
	is := cluster.New(t, cluster.Config{Nodes: 1, NotStarted: true})
	old, now := was.Nodes[0], is.Nodes[0]
	ada := was.SignIn(t, "ada@example.com").Connect(t, old, "jobs:read")
	// More than any buffer on the way holds.
	was.Postgres.Exec(t, `INSERT INTO gpt_oauth_events (event_type, metadata) SELECT 'many', jsonb_build_object('reason', repeat('x', 500)) FROM generate_series(1, 20000)`)

	export := old.Program(t, "oauth", "export")
	out, err := export.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	said := start(t, export)
	lines := bufio.NewReader(out)
	cut, err := lines.ReadString('\n') // it is under way, and nobody reads on
	if err != nil {
		t.Fatal(err)
	}
	interrupt(t, export)
	rest, _ := io.ReadAll(lines)
	if err := export.Wait(); err == nil || !strings.Contains(said.String(), "incomplete") {
		t.Errorf("export: %v %s", err, said)
	}
	file := filepath.Join(t.TempDir(), "state.jsonl")
	writeFile(t, file, cut+string(rest))
	refused, err := now.Program(t, "oauth", "import", file).CombinedOutput()
	if err == nil || !strings.Contains(string(refused), "nothing was imported") {
		t.Errorf("the file that was cut off: %v %s", err, refused)
	}

	exportTo(t, old, file)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	load := now.Program(t, "oauth", "import", "-")
	in, err := load.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	said = start(t, load)
	if _, err := in.Write(whole[:len(whole)/2]); err != nil { // it has read most of it, and waits for more
		t.Fatalf("%v %s", err, said)
	}
	interrupt(t, load)
	if err := load.Wait(); err == nil || !strings.Contains(said.String(), "nothing was imported") {
		t.Errorf("import: %v %s", err, said)
	}
	if out := now.Command(t, "oauth", "import", file); !strings.Contains(out, "imported ") {
		t.Fatal(out)
	}
	now.Start(t)
	now.AwaitReady(t)
	if answer := now.Get(t.Context(), "/jobs", ada.Access); !answer.OK() {
		t.Errorf("after all: %s", answer)
	}
}

// start starts a command that a test interrupts, and returns what it says.
func start(t *testing.T, command *exec.Cmd) *lockedBuffer {
	t.Helper()
	said := new(lockedBuffer)
	command.Stderr = said
	if command.Stdout == nil {
		command.Stdout = said
	}
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	return said
}

// interrupt is Ctrl-C. It waits until the process has ended.
func interrupt(t *testing.T, command *exec.Cmd) {
	t.Helper()
	if err := command.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(60 * time.Second); !zombie(command.Process.Pid); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			_ = command.Process.Kill()
			t.Fatal("it goes on after Ctrl-C")
		}
	}
}

// zombie reports whether a process of ours has ended, and waits to be waited for.
func zombie(pid int) bool {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err != nil || bytes.Contains(status, []byte(") Z "))
}
