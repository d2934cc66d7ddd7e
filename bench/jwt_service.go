package main

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jwt"
)

// jwtServiceCommand makes this program the small service that people put beside
// nginx: it verifies the token of every request and names the user.
const jwtServiceCommand = "jwt-service"

// jwtServiceConfig is what the service is told, as JSON.
type jwtServiceConfig struct {
	Address string          `json:"address"`
	Issuer  string          `json:"issuer"`
	Key     json.RawMessage `json:"key"` // a public JWK
}

func (p *proxy) startJWTService() (address string, err error) {
	if address, err = freeAddress(); err != nil {
		return "", err
	}
	public, err := jwk.FromRaw(&p.scene.key.PublicKey)
	if err != nil {
		return "", err
	}
	key, err := json.Marshal(public)
	if err != nil {
		return "", err
	}
	config, err := json.Marshal(jwtServiceConfig{address, p.issuer(), key})
	if err != nil {
		return "", err
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	one, err := start(self, nil, jwtServiceCommand, string(config))
	if err != nil {
		return "", err
	}
	p.running = append(p.running, one)
	return address, nil
}

func serveJWTs(argument string) error {
	var config jwtServiceConfig
	if err := json.Unmarshal([]byte(argument), &config); err != nil {
		return err
	}
	var key ecdsa.PublicKey
	if err := jwk.ParseRawKey(config.Key, &key); err != nil {
		return fmt.Errorf("key: %w", err)
	}
	listener, err := net.Listen("tcp", config.Address)
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, err := jwt.ParseString(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "),
			jwt.WithKey(jwa.ES256, &key), jwt.WithIssuer(config.Issuer), jwt.WithAudience(config.Issuer))
		if err != nil {
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		w.Header().Set("X-User-Id", token.Subject())
	})}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.Serve(listener); err != http.ErrServerClosed {
		return err
	}
	return nil
}
