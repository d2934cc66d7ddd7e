package jobboard

import (
	"net/http"
	"slices"
	"strings"
)

// JobsHandler serves the jobs API.
func (b *Board) JobsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /jobs", b.listJobs)
	mux.HandleFunc("GET /jobs/{id}", b.getJob)
	mux.HandleFunc("GET /health", health)
	return withJSONErrors(mux)
}

func (b *Board) listJobs(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	page, problem := parsePage(query)
	if problem != nil {
		problem.write(w)
		return
	}
	remote := query.Get("remote")
	if remote != "" && remote != "true" && remote != "false" {
		invalid("remote", "must be true or false").write(w)
		return
	}
	found := slices.DeleteFunc(slices.Clone(b.jobs), func(j Job) bool {
		return !j.mentions(query.Get("q")) ||
			!containsFold(j.Location, query.Get("location")) ||
			(remote != "" && j.Remote != (remote == "true")) ||
			(query.Has("skill") && !slices.Contains(j.Skills, strings.ToLower(query.Get("skill"))))
	})
	writePage(w, "jobs", found, page)
}

func (b *Board) getJob(w http.ResponseWriter, r *http.Request) {
	job, ok := b.job(r.PathValue("id"))
	if !ok {
		notFound("no such job").write(w)
		return
	}
	writeJSON(w, http.StatusOK, job)
}

// job finds a vacancy by its id.
func (b *Board) job(id string) (Job, bool) {
	i := slices.IndexFunc(b.jobs, func(j Job) bool { return j.ID == id })
	if i < 0 {
		return Job{}, false
	}
	return b.jobs[i], true
}

// mentions reports whether every word of q stands in the job.
func (j Job) mentions(q string) bool {
	text := strings.Join([]string{j.Title, j.Company, j.Location, j.Description, strings.Join(j.Skills, " ")}, " ")
	for _, word := range strings.Fields(q) {
		if !containsFold(text, word) {
			return false
		}
	}
	return true
}

func containsFold(s, part string) bool {
	return strings.Contains(strings.ToLower(s), strings.ToLower(part))
}
