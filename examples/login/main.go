// Command login is a small native client (RFC 8252): it signs a user in at the
// gateway of the try-out with the browser and prints what to do with the token.
//
//	login [-gateway URL] [-client ID] [-scope "SCOPE SCOPE"]
//
// A client secret is taken from DEMO_CLIENT_SECRET when -client is not the
// public one.
package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

func main() {
	gateway := flag.String("gateway", "http://localhost:8080", "address of the gateway")
	client := flag.String("client", "demo-public", "client_id")
	scope := flag.String("scope", "jobs:read applications:read resume:read", "scopes to ask for")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	token, err := login(ctx, *gateway, *client, *scope)
	if err != nil {
		fmt.Fprintln(os.Stderr, "login:", err)
		os.Exit(1)
	}
	fmt.Printf(`
scope          %v
expires        %s
access token   %s
refresh token  %s

curl -H "Authorization: Bearer %[3]s" %[5]s/jobs?q=go
`, token.Extra("scope"), token.Expiry.Format(time.TimeOnly), token.AccessToken, token.RefreshToken, *gateway)
}

// login runs the authorization code flow with PKCE.
func login(ctx context.Context, gateway, client, scope string) (*oauth2.Token, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	config := &oauth2.Config{
		ClientID:    client,
		RedirectURL: "http://" + listener.Addr().String() + "/callback",
		Scopes:      strings.Fields(scope),
		Endpoint:    oauth2.Endpoint{AuthURL: gateway + "/oauth/authorize", TokenURL: gateway + "/oauth/token", AuthStyle: oauth2.AuthStyleInParams},
	}
	if client != "demo-public" {
		config.ClientSecret = os.Getenv("DEMO_CLIENT_SECRET")
	}
	state, verifier := rand.Text(), oauth2.GenerateVerifier()

	answers := make(chan answer, 1)
	server := &http.Server{Handler: callback(gateway, state, answers), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }()
	defer func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = server.Shutdown(grace) // the browser gets its page first
	}()

	fmt.Printf("Open this link in a browser on this machine:\n\n  %s\n\n", config.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier)))
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case a := <-answers:
		if a.err != nil {
			return nil, a.err
		}
		return config.Exchange(ctx, a.code, oauth2.VerifierOption(verifier))
	}
}

type answer struct {
	code string
	err  error
}

// callback takes the answer of the authorization server, once. What does not
// carry our state is not for us (RFC 9700 section 4.7); what does not carry the
// issuer's name comes from another server (RFC 9207).
func callback(issuer, state string, answers chan<- answer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /callback", func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(state)) != 1 || query.Get("iss") != issuer {
			http.Error(w, "This is not the answer that was waited for.", http.StatusBadRequest)
			return
		}
		a := answer{code: query.Get("code")}
		if code := query.Get("error"); code != "" {
			a.err = fmt.Errorf("the server answered %s: %s", code, query.Get("error_description"))
		}
		select {
		case answers <- a:
		default:
		}
		fmt.Fprintln(w, "Done. Go back to the terminal.")
	})
	return mux
}
