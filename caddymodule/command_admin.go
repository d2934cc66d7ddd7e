package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// askAdmin gets an answer of the admin API of a running server, in JSON. address
// is HOST:PORT; empty: where it is by default.
func askAdmin(ctx context.Context, address, path string, answer any) error {
	if address == "" {
		address = caddy.DefaultAdminListen
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("ask the admin API at %s (another one: --address HOST:PORT): %w", address, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var said struct {
			Error string `json:"error"`
		}
		_ = json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(&said)
		return fmt.Errorf("the admin API at %s answered %d: %s", address, resp.StatusCode, said.Error)
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return fmt.Errorf("the admin API at %s answered no JSON: %w", address, err)
	}
	return nil
}
