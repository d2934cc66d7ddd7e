//go:build linux

package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// adminLimit bounds a call of the admin API, a reload with its grace included.
const adminLimit = 30 * time.Second

// Reload loads the node's Caddyfile through its admin API, as `caddy reload
// --force` does.
func (n *Node) Reload() error {
	text, err := os.ReadFile(n.caddyfile())
	if err != nil {
		return err
	}
	_, err = n.admin(http.MethodPost, "/load", "text/caddyfile", text)
	return err
}

// Status is the answer of /oauth/status.
type Status struct {
	Ready bool
	View  struct {
		Fresh     bool
		Staleness float64 `json:"staleness_seconds"`
		Known     int     `json:"known_sessions"`
		Failure   string
	}
}

// Status asks the admin API.
func (n *Node) Status(t testing.TB) (status Status) {
	t.Helper()
	text, err := n.admin(http.MethodGet, "/oauth/status", "", nil)
	if err == nil {
		err = json.Unmarshal(text, &status)
	}
	if err != nil {
		t.Fatalf("status of %s: %v", n.Name, err)
	}
	return status
}

// Metrics reads every metric, by its name with labels as Prometheus prints it.
func (n *Node) Metrics(t testing.TB) map[string]float64 {
	t.Helper()
	text, err := n.admin(http.MethodGet, "/metrics", "", nil)
	if err != nil {
		t.Fatalf("metrics of %s: %v", n.Name, err)
	}
	metrics := make(map[string]float64)
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		line := lines.Text()
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		if value, err := strconv.ParseFloat(line[at+1:], 64); err == nil {
			metrics[line[:at]] = value
		}
	}
	return metrics
}

// Usage is what a node holds.
type Usage struct {
	Goroutines, Files, PostgresConnections int
	Resident                               int64 // bytes
	Heap                                   int64 // bytes reachable after a collection
}

func (u Usage) String() string {
	return fmt.Sprintf("%d goroutines, %d files, %d connections to Postgres, %d MiB resident, %d MiB heap",
		u.Goroutines, u.Files, u.PostgresConnections, u.Resident>>20, u.Heap>>20)
}

// Usage measures the node, after a garbage collection.
func (n *Node) Usage(t testing.TB) Usage {
	t.Helper()
	// The heap profile collects first when asked to.
	if _, err := n.admin(http.MethodGet, "/debug/pprof/heap?gc=1&debug=0", "", nil); err != nil {
		t.Fatalf("collect garbage of %s: %v", n.Name, err)
	}
	m := n.Metrics(t)
	return Usage{
		Goroutines: int(m["go_goroutines"]), Files: int(m["process_open_fds"]), PostgresConnections: n.Wire.Open(),
		Resident: int64(m["process_resident_memory_bytes"]), Heap: int64(m["go_memstats_heap_alloc_bytes"]),
	}
}

// Goroutines is the text of every goroutine's stack, for a test that failed.
func (n *Node) Goroutines() string {
	text, err := n.admin(http.MethodGet, "/debug/pprof/goroutine?debug=1", "", nil)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (n *Node) admin(method, path, contentType string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), adminLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+n.Admin+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Cache-Control", "must-revalidate") // load what has not changed, too
	request.Host = "localhost"                             // whatever the address, the one name that the admin API serves
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
		request.Header.Set("Cache-Control", "must-revalidate") // --force: else the same configuration is left as it runs
	}
	response, err := adminClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, bytes.TrimSpace(text))
	}
	return text, err
}

// A reload replaces the admin server, so no connection to it is kept.
var adminClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
