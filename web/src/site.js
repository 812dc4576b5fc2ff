// Where this page is: with a service, or on a file server without one (affekt web).

const content = (name) => document.querySelector(`meta[name="${name}"]`).content;

export const site = {
  service: content("affekt-service"), // the path of the service; "" without one
  files: content("affekt-files"), // the folder of the model's files
};
