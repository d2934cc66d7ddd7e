// Command ownersapp is the app of an owner for the tests: it signs users in on a
// page of its own, which can be cancelled, gives their browser a token in the cookie
// app_session, signed with the secret, and the same in app_keys, signed with a key
// that stands at /jwks, and says at /whoami whose a cookie is.
//
//	ownersapp <port> <secret>
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"html/template"
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

var signIn = template.Must(template.New("").Parse(`<!doctype html><title>Job Board</title><h1>Sign in at the job board</h1>
<form method="post"><label for="u">Username</label> <input id="u" name="username"><button>Log in</button></form>
<form action="/cancel"><input type="hidden" name="next" value="{{.}}"><button>Cancel</button></form>`))

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: ownersapp <port> <secret>")
	}
	address, secret := "http://localhost:"+os.Args[1], []byte(os.Args[2])
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: secret}, nil)
	if err != nil {
		log.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	keySigner, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "app"}}, nil)
	if err != nil {
		log.Fatal(err)
	}
	back := func(w http.ResponseWriter, r *http.Request) {
		next := r.FormValue("next")
		if u, err := url.Parse(next); err != nil || u.Hostname() != "localhost" {
			http.Error(w, "not one of our pages", http.StatusBadRequest)
			return
		}
		http.Redirect(w, r, next, http.StatusSeeOther)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /sign-in", func(w http.ResponseWriter, r *http.Request) { _ = signIn.Execute(w, r.FormValue("next")) })
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) {
		name, now := r.FormValue("username"), time.Now()
		payload, _ := json.Marshal(map[string]any{
			"iss": address, "sub": "app-" + name, "email": name + "@app.example", "roles": []string{"recruiter"},
			"iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(),
		})
		for cookie, signer := range map[string]jose.Signer{"app_session": signer, "app_keys": keySigner} {
			signed, err := signer.Sign(payload)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			token, _ := signed.CompactSerialize()
			http.SetCookie(w, &http.Cookie{Name: cookie, Value: token, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
		}
		back(w, r)
	})
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/jwk-set+json")
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "app", Algorithm: string(jose.ES256), Use: "sig"}}})
	})
	mux.HandleFunc("GET /cancel", back)
	mux.HandleFunc("GET /whoami", func(w http.ResponseWriter, r *http.Request) {
		cookie, err := r.Cookie("app_session")
		if err != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		var claims struct{ Sub, Email string }
		signed, err := jose.ParseSignedCompact(cookie.Value, []jose.SignatureAlgorithm{jose.HS256})
		if err == nil {
			var payload []byte
			if payload, err = signed.Verify(secret); err == nil {
				err = json.Unmarshal(payload, &claims)
			}
		}
		if err != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("X-User", "who-"+strings.TrimPrefix(claims.Sub, "app-"))
		w.Header().Set("X-Email", claims.Email)
		w.Header().Set("X-Roles", "recruiter,editor")
	})
	server := &http.Server{Addr: "127.0.0.1:" + os.Args[1], Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	fmt.Println("ready")
	log.Fatal(server.ListenAndServe())
}
