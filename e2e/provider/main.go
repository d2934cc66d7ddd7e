// Command provider is an OpenID provider for the tests: zitadel/oidc with its
// example storage, and a sign-in page that can be cancelled.
//
//	provider <port> <client_id> <client_secret> <redirect_uri>
//
// Its user is test-user@localhost with the password verysecure.
package main

import (
	"fmt"
	"html/template"
	"log"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
)

var signIn = template.Must(template.New("").Parse(`<!doctype html><title>Provider</title><h1>Sign in at the provider</h1>
<form method="post" action="/login/username"><input type="hidden" name="id" value="{{.}}">
<label for="u">Username</label> <input id="u" name="username"> <label for="p">Password</label> <input id="p" name="password" type="password">
<button>Log in</button></form>
<form action="/cancel"><input type="hidden" name="id" value="{{.}}"><button>Cancel</button></form>`))

func main() {
	if len(os.Args) != 5 {
		log.Fatal("usage: provider <port> <client_id> <client_secret> <redirect_uri>")
	}
	issuer := "http://localhost:" + os.Args[1]
	storage.RegisterClients(storage.WebClient(os.Args[2], os.Args[3], os.Args[4]))
	store := storage.NewStorage(storage.NewUserStore(issuer))
	provider := exampleop.SetupServer(issuer, store, slog.New(slog.NewTextHandler(os.Stderr, nil)), false)
	mux := http.NewServeMux()
	mux.Handle("/", provider)
	mux.HandleFunc("GET /login/username", func(w http.ResponseWriter, r *http.Request) {
		_ = signIn.Execute(w, r.FormValue("authRequestID"))
	})
	mux.HandleFunc("GET /cancel", func(w http.ResponseWriter, r *http.Request) {
		request, err := store.AuthRequestByID(r.Context(), r.FormValue("id"))
		if err != nil {
			http.Error(w, "unknown request", http.StatusBadRequest)
			return
		}
		answer := url.Values{"error": {"access_denied"}, "state": {request.GetState()}}
		http.Redirect(w, r, request.GetRedirectURI()+"?"+answer.Encode(), http.StatusFound)
	})
	server := &http.Server{Addr: "127.0.0.1:" + os.Args[1], Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	fmt.Println("ready")
	log.Fatal(server.ListenAndServe())
}
